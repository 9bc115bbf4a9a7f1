#include "registry/package.hpp"

#include "registry/base/files.hpp"
#include "registry/manifest.hpp"
#include "registry/rules.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {
namespace {

namespace fs = std::filesystem;

// Every regular file below, as paths inside the package, sorted. Hidden names are left alone: they are nobody's
// package.
std::vector<std::string> files_below(const fs::path& folder) {
  std::vector<std::string> paths;
  std::error_code problem;
  fs::recursive_directory_iterator it(folder, problem), end;
  for (; !problem && it != end; it.increment(problem)) {
    const std::string path = it->path().lexically_relative(folder).generic_string();
    if (it->path().filename().string().front() == '.') {
      if (it->is_directory()) it.disable_recursion_pending();
      continue;
    }
    if (it->is_symlink() || (!it->is_directory() && !it->is_regular_file()))
      throw Error(Code::usage, rules::kName, fmt::format("{} is a link or no regular file", it->path().string()),
                  "put the file itself there");
    if (it->is_directory()) continue;
    if (const std::string why = package_path_problem(path); !why.empty())
      throw Error(Code::usage, rules::kName, fmt::format("{} cannot stand in a package: {}", path, why), "rename it");
    paths.push_back(path);
  }
  if (problem)
    throw Error(Code::environment, folder.string(), fmt::format("cannot be read: {}", problem.message()),
                "check its permissions");
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string role_of(const std::string& path, const std::vector<ManifestFile>& listed) {
  for (const ManifestFile& file : listed)
    if (file.path == path) return file.role;
  return role_of_path(path);
}

void take_files(const fs::path& folder, const std::vector<ManifestFile>& listed, Draft& draft) {
  for (const std::string& path : files_below(folder)) {
    const std::string role = role_of(path, listed);
    if (role.empty())
      throw Error(Code::usage, rules::kName,
                  fmt::format("{} holds {}, which no package of this kind expects", folder.string(), path),
                  fmt::format("move it away, or list it under \"files\" in {}.json", kind_name(draft.kind)));
    draft.files.push_back({path, folder / path, role});
  }
  for (const ManifestFile& file : listed)
    if (std::none_of(draft.files.begin(), draft.files.end(), [&](const auto& f) { return f.path == file.path; }))
      throw Error(
          Code::not_found, rules::kMissing,
          fmt::format("{}.json lists {}, which {} does not hold", kind_name(draft.kind), file.path, folder.string()));
}

template <typename Manifest>
Draft draft_of(Kind kind, const fs::path& folder, const fs::path& manifest_path) {
  const json::value value = read_json(manifest_path, kEntryLimitBytes / 2);
  const Manifest manifest = Manifest::parse(value, manifest_path.string());
  Draft draft{.kind = kind,
              .name = manifest.name,
              .version = manifest.version,
              .summary = manifest.summary,
              .license = manifest.license,
              .manifest = value.as_object(),
              .files = {},
              .platform = "",
              .source = ""};
  take_files(folder, manifest.files, draft);
  return draft;
}

} // namespace

std::string role_of_path(std::string_view path) {
  if (path == "model.json" || path == "expert.json") return "manifest";
  if (path.starts_with("calibration/")) return "calibration";
  if (path.starts_with("golden/")) return "golden";
  if (path.find('/') != std::string_view::npos) return "";
  if (path == "tokenizer.json" || path.starts_with("tokenizer.") || path.starts_with("tokenizer-")) return "tokenizer";
  if (path == "row.safetensors") return "row";
  if (path == "profile.safetensors") return "profile";
  if (path.starts_with("golden") && path.ends_with(".safetensors")) return "golden";
  if (path.starts_with("weights") && path.ends_with(".safetensors")) return "weights";
  if (path == "card.md" || path == "README.md" || path == "LICENSE") return "card";
  if (path.starts_with("report")) return "report";
  return "";
}

Draft draft_from_folder(const fs::path& folder) {
  const fs::path model = folder / "model.json", expert = folder / "expert.json";
  std::error_code ignored; // reading it says what is wrong
  const bool has_model = fs::exists(model, ignored), has_expert = fs::exists(expert, ignored);
  if (has_model && has_expert)
    throw Error(Code::usage, rules::kName, folder.string() + " holds both model.json and expert.json",
                "give each package a folder of its own");
  if (has_model) return draft_of<ModelManifest>(Kind::model, folder, model);
  if (has_expert) return draft_of<ExpertManifest>(Kind::expert, folder, expert);
  throw Error(Code::not_found, rules::kMissing, folder.string() + " holds neither model.json nor expert.json",
              "give the folder of a model or an expert, or the .so of a plugin");
}

} // namespace tenon
