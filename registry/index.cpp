#include "registry/index.hpp"

#include "registry/base/files.hpp"
#include "registry/fields.hpp"
#include "registry/index_file.hpp"
#include "registry/rules.hpp"

#include <algorithm>

namespace tenon {
namespace {

const char* word(Event::What what) {
  switch (what) {
    case Event::What::publish: return "publish";
    case Event::What::yank: return "yank";
    case Event::What::unyank: return "unyank";
  }
  return "";
}

Event::What read_what(const JsonReader& reader) {
  const std::string text = reader.string();
  for (auto what : {Event::What::publish, Event::What::yank, Event::What::unyank})
    if (text == word(what)) return what;
  reader.fail("found \"" + text.substr(0, 40) + "\", need publish, yank or unyank");
}

Event event_of(const json::value& value, const std::string& where) {
  const JsonReader reader(value, rules::format(where));
  Event event;
  event.what = read_what(reader.at("event"));
  event.kind = kind_at(reader.at("kind"));
  event.name = reader.at("name").string();
  event.version = version_at(reader.at("version"));
  event.time = line_at(reader.at("time"));
  event.reason = reader.has("reason") ? line_at(reader.at("reason")) : "";
  if (reader.has("signature")) event.signature = reader.at("signature").value();
  if (event.what != Event::What::publish) return event;
  event.entry = digest_at(reader.at("entry"));
  if (event.kind == Kind::plugin) {
    event.platform = line_at(reader.at("platform"));
    event.source = digest_at(reader.at("source"));
  }
  return event;
}

[[noreturn]] void damaged(const std::string& name, const std::string& message) {
  throw Error(Code::integrity, rules::format("index/" + name + ".jsonl"), message,
              "restore this file from a copy of the registry");
}

PublishedVersion* find_version(PublishedPackage& package, const Version& version) {
  for (PublishedVersion& found : package.versions)
    if (found.version == version) return &found;
  return nullptr;
}

void fold_publish(PublishedPackage& package, const Event& event) {
  PublishedVersion* found = find_version(package, event.version);
  if (!found) {
    found = &package.versions.emplace_back();
    found->version = event.version;
    found->source = event.source;
  } else if (event.kind != Kind::plugin) {
    damaged(event.name, "version " + event.version.text() + " is published twice");
  } else if (found->source != event.source) {
    damaged(event.name, "builds of version " + event.version.text() + " come from different sources: " + found->source +
                            " and " + event.source);
  }
  for (const Build& build : found->builds)
    if (build.platform == event.platform)
      damaged(event.name, "version " + event.version.text() + " is published twice for " + event.platform);
  found->builds.push_back({event.entry, event.platform, event.time});
}

} // namespace

Event Event::parse(std::string_view line, const std::string& where) {
  return event_of(parse_json(line, rules::format(where)), where);
}

std::string Event::line() const {
  json::object object{{"schema", kEventSchema}, {"event", word(what)},       {"kind", kind_name(kind)},
                      {"name", name},           {"version", version.text()}, {"time", time}};
  if (what == What::publish) {
    object["entry"] = entry;
    if (kind == Kind::plugin) {
      object["platform"] = platform;
      object["source"] = source;
    }
  }
  if (!reason.empty()) object["reason"] = reason;
  if (!signature.is_null()) object["signature"] = signature;
  return canonical_json(object);
}

std::vector<Event> parse_index(std::string_view text, const std::string& name) {
  std::vector<Event> events;
  std::size_t number = 0;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string_view::npos; begin = end + 1) {
    ++number;
    const std::string_view line = text.substr(begin, end - begin);
    const std::string where = "index/" + name + ".jsonl line " + std::to_string(number);
    if (line.size() > kEventLimitBytes)
      damaged(name, "line " + std::to_string(number) + " has " + std::to_string(line.size()) + " bytes, at most " +
                        std::to_string(kEventLimitBytes) + " are allowed");
    const json::value value = parse_json(line, rules::format(where));
    const JsonReader reader(value, rules::format(where));
    const std::int64_t schema = reader.at("schema").integer();
    if (schema > kEventSchema) continue; // written by a newer Tenon, for newer readers
    if (schema < 1) reader.at("schema").fail("need 1 or more");
    events.push_back(event_of(value, where));
    if (events.back().name != name)
      damaged(name, "line " + std::to_string(number) + " speaks of another package, \"" +
                        events.back().name.substr(0, 80) + "\"");
  }
  return events;
}

PublishedPackage fold(const std::string& name, const std::vector<Event>& events) {
  PublishedPackage package;
  package.name = name;
  if (!events.empty()) package.kind = events.front().kind;
  for (const Event& event : events) {
    if (event.kind != package.kind)
      damaged(name, "it is " + a_kind(package.kind) + " first and " + a_kind(event.kind) + " later");
    if (event.what == Event::What::publish) {
      fold_publish(package, event);
      continue;
    }
    PublishedVersion* found = find_version(package, event.version);
    if (!found) damaged(name, "version " + event.version.text() + " is yanked or unyanked, and was never published");
    found->yanked = event.what == Event::What::yank;
    found->yank_reason = found->yanked ? event.reason : "";
  }
  std::stable_sort(package.versions.begin(), package.versions.end(),
                   [](const auto& a, const auto& b) { return a.version > b.version; });
  return package;
}

std::filesystem::path index_path(const std::filesystem::path& registry, const std::string& name) {
  return registry / "index" / (name + ".jsonl");
}

std::optional<PublishedPackage> read_index(const std::filesystem::path& registry, const std::string& name) {
  const auto path = index_path(registry, name);
  std::error_code problem;
  const auto status = std::filesystem::status(path, problem);
  if (status.type() == std::filesystem::file_type::not_found) return std::nullopt;
  if (status.type() != std::filesystem::file_type::none && !std::filesystem::is_regular_file(status))
    damaged(name, "it is no regular file");
  PublishedPackage package = fold(name, parse_index(read_file(path, kIndexLimitBytes), name));
  if (package.versions.empty()) return std::nullopt;
  return package;
}

void append_event(const std::filesystem::path& registry, const Event& event, const Registry::Observer& observer) {
  const std::string line = event.line() + "\n";
  if (line.size() > kEventLimitBytes)
    throw Error(Code::usage, rules::kFormat,
                "an index line of " + std::to_string(line.size()) + " bytes is larger than the " +
                    std::to_string(kEventLimitBytes) + " allowed",
                "shorten what is said in it");
  if (const std::string problem = line_problem(event.reason); !problem.empty())
    throw Error(Code::usage, rules::kName, "a reason is one plain line: " + problem, "write it on one line");
  IndexFile file(index_path(registry, event.name));
  file.repair();
  file.append(line, observer);
}

} // namespace tenon
