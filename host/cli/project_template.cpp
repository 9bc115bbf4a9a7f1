#include "host/cli/project_template.hpp"

#include "generated/tenon_project_template.hpp" // generated from sdk/template/
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/json.hpp"
#include "registry/names.hpp"

#include <fmt/format.h>

#include <cctype>

namespace tenon {
namespace {

std::string identifier(std::string text) {
  for (char& c : text) {
    if (c == '.' || c == '-') c = '_';
  }
  return text;
}

std::string type_name(const std::string& stem) {
  std::string out;
  bool raise = true;
  for (const char c : stem) {
    if (c == '_' || c == '-') {
      raise = true;
      continue;
    }
    out += raise ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    raise = false;
  }
  return out;
}

std::string filled(std::string text, const std::map<std::string, std::string>& values) {
  for (const auto& [placeholder, value] : values) {
    for (std::size_t at = 0; (at = text.find(placeholder, at)) != std::string::npos; at += value.size()) {
      text.replace(at, placeholder.size(), value);
    }
  }
  return text;
}

// Every occurrence of a whole name: no letter, digit, dot, dash or underscore follows.
std::string renamed(std::string text, const std::map<std::string, std::string>& names) {
  for (const auto& [from, to] : names) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos;) {
      const char next = at + from.size() < text.size() ? text[at + from.size()] : ' ';
      const bool whole = !std::isalnum(static_cast<unsigned char>(next)) && next != '.' && next != '-' && next != '_';
      if (whole) text.replace(at, from.size(), to);
      at += whole ? to.size() : from.size();
    }
  }
  return text;
}

// "tenon.recurrent" and "tenon.recurrent_middle", as acme.gru: "acme.gru" and "acme.gru_middle".
std::map<std::string, std::string> new_names(const json::value& facts, const ProjectNames& names) {
  const JsonReader reader(facts, "plugin.json");
  const std::string plugin = reader.at("name").string();
  std::map<std::string, std::string> out = {{plugin, names.name}};
  for (std::size_t i = 0; i < reader.at("architectures").size(); ++i) {
    const std::string name = reader.at("architectures").at(i).at("name").string();
    out[name] = name.rfind(plugin, 0) == 0 ? names.name + name.substr(plugin.size())
                                           : names.vendor + name.substr(name.find('.'));
  }
  return out;
}

ProjectFiles template_files(const ProjectNames& names, const std::string& summary) {
  const std::map<std::string, std::string> values = {{"@SUMMARY@", summary},
                                                     {"@NAME@", names.name},
                                                     {"@VENDOR@", names.vendor},
                                                     {"@STEM@", identifier(names.stem)},
                                                     {"@TARGET@", names.target},
                                                     {"@CLASS@", names.type + "Expert"},
                                                     {"@TENON_VERSION@", kProjectTemplateVersion}};
  const std::map<std::string, std::string> places = {{"expert.cpp", identifier(names.stem) + ".cpp"},
                                                     {"ci.yml", ".github/workflows/build.yml"},
                                                     {"gitignore", ".gitignore"}};
  ProjectFiles out;
  for (const auto& [file, text] : kProjectTemplate) {
    const auto place = places.find(file);
    out[place == places.end() ? file : place->second] = filled(text, values);
  }
  return out;
}

} // namespace

ProjectNames ProjectNames::from(const std::string& name, const std::string& vendor) {
  const auto refuse = [&](const std::string& why) {
    throw Error(Code::usage, "plugin new", why, "for example: tenon plugin new acme.memory");
  };
  const auto dot = name.find('.');
  if (dot == std::string::npos && vendor.empty()) refuse(fmt::format("found \"{}\", need vendor.name", name));
  if (dot != std::string::npos && !vendor.empty() && name.substr(0, dot) != vendor) {
    refuse(fmt::format("found the vendor {} and the name {}, need them to agree", vendor, name));
  }
  ProjectNames out;
  out.vendor = dot == std::string::npos ? vendor : name.substr(0, dot);
  out.stem = dot == std::string::npos ? name : name.substr(dot + 1);
  out.name = out.vendor + "." + out.stem;
  const bool two_parts = out.stem.find('.') == std::string::npos && out.vendor.find('.') == std::string::npos;
  const std::string problem = two_parts ? name_problem(out.name, Kind::plugin) : "a plugin's name has two parts";
  // The stem becomes a C++ type, so it begins with a letter as the vendor does.
  const bool letters =
      std::islower(static_cast<unsigned char>(out.vendor[0])) && std::islower(static_cast<unsigned char>(out.stem[0]));
  if (!problem.empty() || !letters)
    refuse(fmt::format("found \"{}\": {}", out.name, problem.empty() ? "each part begins with a letter" : problem));
  out.target = identifier(out.name);
  out.type = type_name(out.stem);
  return out;
}

ProjectFiles project_files(const ProjectNames& names) {
  return template_files(names, "one architecture, a small multilayer perceptron on the base's output");
}

ProjectFiles project_files_like(const ProjectNames& names, const std::filesystem::path& source) {
  json::value facts = parse_json(read_file(source / "plugin.json"), (source / "plugin.json").string());
  const std::map<std::string, std::string> by = new_names(facts, names);
  const JsonReader reader(facts, "plugin.json");
  ProjectFiles out = template_files(names, "begun as " + reader.at("name").string());
  facts.as_object()["vendor"] = names.vendor;
  out["plugin.json"] = renamed(pretty_json(facts), by);
  out[identifier(names.stem) + ".cpp"] = renamed(read_file(source / (source.filename().string() + ".cpp")), by);
  return out;
}

void write_project(const ProjectNames& names, const ProjectFiles& files, const std::filesystem::path& folder) {
  if (std::filesystem::exists(folder) &&
      (!std::filesystem::is_directory(folder) || !std::filesystem::is_empty(folder))) {
    throw Error(Code::usage, "plugin new",
                fmt::format("found {}, need a folder that is empty or not there yet", folder.string()),
                "choose another folder: tenon plugin new " + names.name + " DIR");
  }
  for (const auto& [path, text] : files) write_file(folder / path, text);
}

} // namespace tenon
