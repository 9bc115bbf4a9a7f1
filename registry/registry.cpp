#include "registry/registry.hpp"

#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"
#include "registry/explain.hpp"
#include "registry/index.hpp"
#include "registry/rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace tenon {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kRegistrySchema = 1;
constexpr std::size_t kConfigLimitBytes = std::size_t{1} << 20;
constexpr std::size_t kNameLimitBytes = 200;

std::string read_config(const fs::path& path) {
  const std::string where = (path / "config.json").string();
  const json::value config = read_json(path / "config.json", kConfigLimitBytes);
  const JsonReader reader(config, rules::format(where));
  const std::int64_t schema = reader.at("schema").integer();
  if (schema > kRegistrySchema)
    throw Error(Code::incompatible, rules::kRegistry,
                fmt::format("{}: the registry has schema {}, this Tenon reads up to {}", path.string(), schema,
                            kRegistrySchema),
                "update Tenon");
  if (schema < 1) reader.at("schema").fail("need 1 or more");
  std::string name = reader.at("name").string();
  if (name.size() > kNameLimitBytes) reader.at("name").fail("need at most 200 characters");
  return name;
}

bool is_registry(const fs::path& path) {
  std::error_code problem, ignored;
  const auto status = fs::status(path / "config.json", problem);
  if (problem == std::errc::permission_denied)
    throw Error(Code::environment, path.string(), "cannot be read: " + problem.message(), "check its permissions");
  return fs::is_regular_file(status) && fs::is_directory(path / "index", ignored) &&
         fs::is_directory(path / "blobs", ignored);
}

void create_folder(const fs::path& path) {
  std::error_code problem;
  fs::create_directories(path, problem);
  if (problem)
    throw Error(Code::environment, path.string(), "cannot be created: " + problem.message(),
                "check the permissions and the free space there");
}

// A file that may stand in an index: a name, and .jsonl.
std::optional<std::string> package_of(const fs::path& file) {
  std::string name = file.stem().string();
  if (file.extension() != ".jsonl" || !name_problem(name).empty()) return std::nullopt;
  return name;
}

std::vector<std::string> names_in(const fs::path& registry) {
  std::vector<std::string> names;
  std::error_code problem;
  fs::directory_iterator it(registry / "index", problem), end;
  for (; !problem && it != end; it.increment(problem))
    if (const auto name = package_of(it->path())) names.push_back(*name);
  if (problem)
    throw Error(Code::environment, (registry / "index").string(), "cannot be read: " + problem.message(),
                "check its permissions");
  std::sort(names.begin(), names.end());
  return names;
}

// The entry a build's index line names, and the line's own words about it: a swapped digest is not believed.
Entry entry_of_build(const Registry& registry, const PublishedPackage& package, const PublishedVersion& version,
                     const Build& build) {
  Entry entry = registry.entry(build.entry);
  if (entry.kind != package.kind || entry.name != package.name || entry.version != version.version ||
      entry.platform != build.platform || entry.source != version.source)
    throw Error(Code::integrity, rules::kDigest,
                fmt::format("the index of {} {} names an entry of {} {} ({})", package.name, version.version.text(),
                            kind_name(entry.kind), entry.title(), build.entry),
                "restore the index from a copy of the registry");
  return entry;
}

bool contains_ignoring_case(std::string_view text, std::string_view word) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::search(text.begin(), text.end(), word.begin(), word.end(),
                     [&](char a, char b) { return lower(a) == lower(b); }) != text.end();
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    if (end > 0) words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

std::string searchable(const Registry& registry, const PublishedPackage& package) {
  std::string text = package.name + " " + kind_name(package.kind);
  try {
    const Entry entry = registry.entry(package.versions.front().builds.front().entry);
    text += " " + entry.summary + " " + canonical_json(entry.manifest);
  } catch (const Error&) {
    // A damaged entry is still found by its name; verify says what is wrong with it.
  }
  return text;
}

} // namespace

Registry::Registry(fs::path path) : path_(std::move(path)) {
  if (!is_registry(path_))
    throw Error(Code::not_found, rules::kRegistry, path_.string() + " holds no registry",
                "check the path; tenon publish PACKAGE --registry PATH --create makes a new one");
  name_ = read_config(path_);
}

Registry Registry::create(const fs::path& path, const std::string& name) {
  std::error_code ignored;
  if (fs::exists(path, ignored) && !fs::is_empty(path, ignored) && !fs::is_directory(path / "blobs", ignored))
    throw Error(Code::usage, rules::kRegistry, path.string() + " holds something else already",
                "choose an empty folder, or one that does not exist yet");
  if (is_registry(path))
    throw Error(Code::usage, rules::kRegistry, path.string() + " is a registry already", "publish to it");
  if (name.empty() || name.size() > kNameLimitBytes)
    throw Error(Code::usage, rules::kRegistry, "a registry's name has 1 to 200 characters");
  create_folder(path / "blobs");
  create_folder(path / "index");
  // config.json comes last: without it nothing is a registry, and creating goes on where it was stopped.
  write_file(path / "config.json", pretty_json(json::object{{"schema", kRegistrySchema}, {"name", name}}));
  return Registry(path, name);
}

Registry Registry::open_or_create(const fs::path& path, const std::string& name) {
  if (is_registry(path)) return Registry(path);
  try {
    return create(path, name);
  } catch (const Error&) {
    if (is_registry(path)) return Registry(path); // another process was quicker
    throw;
  }
}

Listing Registry::list() const {
  Listing listing;
  for (const std::string& name : names_in(path_)) {
    try {
      if (auto package = read_index(path_, name)) listing.packages.push_back(std::move(*package));
    } catch (const Error& problem) {
      listing.damaged.push_back({problem.code, problem.unit, problem.message, problem.remedy});
    }
  }
  return listing;
}

std::vector<PublishedPackage> Registry::search(std::string_view text) const {
  std::vector<PublishedPackage> found;
  const std::vector<std::string> words = words_of(text);
  for (PublishedPackage& package : list().packages) {
    const std::string about = searchable(*this, package);
    if (std::all_of(words.begin(), words.end(), [&](const auto& word) { return contains_ignoring_case(about, word); }))
      found.push_back(std::move(package));
  }
  return found;
}

std::optional<PublishedPackage> Registry::find(const std::string& name) const {
  if (!name_problem(name).empty()) return std::nullopt;
  return read_index(path_, name);
}

PublishedPackage Registry::show(const std::string& name) const {
  if (auto package = find(name)) return *package;
  throw Error(Code::not_found, rules::kMissing, fmt::format("{} holds no package \"{}\"", path_.string(), name),
              near_names(name, names_in(path_)));
}

fs::path Registry::blob(const std::string& digest) const {
  if (!is_digest(digest))
    throw Error(Code::integrity, rules::kFormat, fmt::format("\"{}\" is no digest", digest.substr(0, 100)));
  fs::path path = path_ / "blobs" / ("sha256-" + digest.substr(std::strlen("sha256:")));
  std::error_code problem;
  if (!fs::is_regular_file(path, problem))
    throw Error(Code::not_found, rules::kMissing, fmt::format("{} holds no blob {}", path_.string(), digest),
                "copy the blob from another copy of the registry, or publish the package again");
  return path;
}

Entry Registry::entry(const std::string& digest) const {
  const std::string bytes = read_file(blob(digest), kEntryLimitBytes);
  if (const std::string found = digest_of_text(bytes); found != digest)
    throw Error(Code::integrity, rules::kDigest, fmt::format("an entry: expected {}, found {}", digest, found),
                "restore this blob from another copy of the registry");
  return Entry::parse(bytes, "entry " + digest.substr(0, 19));
}

Found Registry::version(const std::string& name, const Version& version, std::string_view platform) const {
  const PublishedPackage package = show(name);
  std::string there;
  for (const PublishedVersion& published : package.versions) {
    there += (there.empty() ? "" : ", ") + published.version.text();
    if (published.version != version) continue;
    Found found;
    for (const Build& build : published.builds)
      if (platform.empty() || build.platform == platform) {
        found.entry = entry_of_build(*this, package, published, build);
        break;
      }
    if (found.entry.name.empty())
      throw Error(Code::incompatible, rules::kPlatform,
                  fmt::format("{} {} has no build for {}", name, version.text(), platform),
                  "build it here from its source, and publish that: tenon publish PATH.so");
    if (published.yanked) found.warnings.push_back(yanked_text(name, published));
    return found;
  }
  throw Error(Code::not_found, rules::kMissing, fmt::format("{} {} is not published", name, version.text()),
              "there is " + there);
}

Found Registry::locked(const std::string& name, const Version& version, const std::string& digest) const {
  const PublishedPackage package = show(name);
  for (const PublishedVersion& published : package.versions)
    for (const Build& build : published.builds) {
      if (build.entry != digest) continue;
      if (published.version != version)
        throw Error(Code::incompatible, rules::kLocked,
                    fmt::format("the lock says {} {} is {}, the registry has that as version {}", name, version.text(),
                                digest, published.version.text()),
                    "resolve again without --locked");
      Found found{entry_of_build(*this, package, published, build), {}};
      if (published.yanked) found.warnings.push_back(yanked_text(name, published));
      return found;
    }
  std::string there = "no such version";
  for (const PublishedVersion& published : package.versions)
    if (published.version == version) there = published.builds.front().entry;
  throw Error(Code::incompatible, rules::kLocked,
              fmt::format("{} {}: the lock says {}, the registry has {}", name, version.text(), digest, there),
              "use the registry the lock was made with, or resolve again without --locked");
}

std::vector<Refusal> Registry::verify(const Entry& entry) const {
  std::vector<Refusal> refusals;
  const auto refuse = [&](const std::string& what, const fs::path& path, const std::string& expected,
                          const std::string& found) {
    refusals.push_back({Code::integrity, rules::kDigest,
                        fmt::format("{} {}: {}: expected {}, found {}", entry.title(), what, path.filename().string(),
                                    expected, found),
                        "restore this blob from another copy of the registry, or publish the package again"});
  };
  const auto check = [&](const std::string& what, const std::string& digest, std::uint64_t size_bytes) {
    try {
      const fs::path path = blob(digest);
      std::error_code ignored;
      const std::uint64_t found_bytes = fs::file_size(path, ignored);
      if (found_bytes != size_bytes)
        return refuse(what, path, fmt::format("{} bytes", size_bytes), fmt::format("{} bytes", found_bytes));
      if (const std::string found = "sha256:" + sha256_file(path); found != digest) refuse(what, path, digest, found);
    } catch (const Error& problem) {
      refusals.push_back(
          {problem.code, problem.unit, entry.title() + " " + what + ": " + problem.message, problem.remedy});
    }
  };
  if (!entry.digest.empty()) check("entry", entry.digest, entry.bytes().size());
  for (const FileRecord& file : entry.files) check(file.path, file.digest, file.size_bytes);
  return refusals;
}

static std::string with_article(Kind kind) {
  return (kind == Kind::expert ? "an " : "a ") + std::string(kind_name(kind));
}

Entry Registry::resolve(const PackageRequest& request, Kind kind, std::string_view platform) const {
  const PublishedPackage package = show(request.name);
  if (package.kind != kind)
    throw Error(Code::incompatible, rules::kKind,
                fmt::format("{} is {}, need {}", request.name, with_article(package.kind), with_article(kind)),
                fmt::format("see what there is: tenon list --kind {}", kind_name(kind)));
  const bool any_platform = platform.empty() || kind != Kind::plugin;
  const PublishedVersion* without_build = nullptr;
  for (const PublishedVersion& version : package.versions) {
    if (version.yanked || !request.range.matches(version.version)) continue;
    for (const Build& build : version.builds)
      if (any_platform || build.platform == platform) return entry_of_build(*this, package, version, build);
    if (!without_build) without_build = &version;
  }
  if (without_build) throw no_build_error(package, *without_build, platform);
  throw no_version_error(package, request);
}

} // namespace tenon
