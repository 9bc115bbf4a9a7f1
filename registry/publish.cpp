// Publishing, yanking: everything here writes, under the registry's lock.
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"
#include "registry/index.hpp"
#include "registry/manifest.hpp"
#include "registry/registry.hpp"
#include "registry/rules.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace tenon {
namespace {

namespace fs = std::filesystem;

fs::path blob_path(const fs::path& registry, const std::string& digest) {
  return registry / "blobs" / ("sha256-" + digest.substr(std::strlen("sha256:")));
}

void observe(const Registry::Observer& observer, std::string_view step) {
  if (observer) observer(step);
}

void require_expert(const Draft& draft) {
  const ExpertManifest manifest = ExpertManifest::parse(draft.manifest, "expert.json");
  const bool has_weights =
      std::any_of(draft.files.begin(), draft.files.end(), [](const auto& f) { return f.role == "weights"; });
  for (const WeightRecord& weight : manifest.weights)
    if (weight.source.starts_with("file:") && !has_weights)
      throw Error(Code::integrity, rules::format("expert.json"),
                  fmt::format("the weight {} comes from a file, and the package holds no weights file", weight.name));
}

void require_same(const char* what, const std::string& draft, const std::string& manifest) {
  if (draft != manifest)
    throw Error(Code::integrity, rules::format("manifest"),
                fmt::format("its {} is {}, the package's is {}", what, manifest, draft));
}

// All that can be known before a byte is written.
void require_draft(const Draft& draft) {
  require_name(draft.name, draft.kind);
  require_same("name", draft.name, JsonReader(draft.manifest, rules::format("manifest")).string("name", draft.name));
  require_same("version", draft.version.text(),
               JsonReader(draft.manifest, rules::format("manifest")).string("version", draft.version.text()));
  if (draft.kind == Kind::model) ModelManifest::parse(draft.manifest, "model.json");
  if (draft.kind == Kind::expert) require_expert(draft);
  if (draft.kind == Kind::plugin) {
    const auto libraries =
        std::count_if(draft.files.begin(), draft.files.end(), [](const auto& f) { return f.role == "library"; });
    if (libraries != 1)
      throw Error(Code::usage, rules::kName, fmt::format("a plugin has one library, this draft has {}", libraries));
    if (draft.platform.empty() || !is_digest(draft.source))
      throw Error(Code::usage, rules::kName, "a plugin's draft needs its platform and the digest of its source");
  }
  if (draft.files.empty()) throw Error(Code::usage, rules::kName, draft.name + ": a package holds at least one file");
  for (const PackageFile& file : draft.files) {
    const std::string problem = package_path_problem(file.path);
    if (!problem.empty() || !is_role(file.role))
      throw Error(Code::usage, rules::kName,
                  fmt::format("\"{}\" with role \"{}\" cannot stand in a package{}{}", file.path, file.role,
                              problem.empty() ? "" : ": ", problem));
  }
}

// A row or profile that the manifest names by digest is the file beside it.
void require_named_digests(const Entry& entry) {
  if (entry.kind != Kind::expert) return;
  const ExpertManifest manifest = ExpertManifest::parse(entry.manifest, "expert.json");
  const auto compare = [&](const char* role, const std::optional<std::string>& named) {
    const auto files = entry.files_with_role(role);
    const std::string found = files.size() == 1 ? files.front().digest : fmt::format("{} files", files.size());
    if (named ? found != *named : !files.empty())
      throw Error(Code::integrity, rules::kDigest,
                  fmt::format("{}: expert.json names the {} {}, the package holds {}", entry.title(), role,
                              named.value_or("null"), found),
                  "write expert.json after the files it names");
  };
  compare("row", manifest.row);
  compare("profile", manifest.profile);
}

std::string copy_and_hash(const fs::path& source, AtomicFile& target) {
  std::ifstream in(source, std::ios::binary);
  Sha256 hash;
  std::vector<char> block(std::size_t{1} << 20);
  while (in) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    const auto bytes = std::as_bytes(std::span(block.data(), static_cast<std::size_t>(in.gcount())));
    hash.update(bytes);
    target.write(bytes);
  }
  if (!in.eof()) throw Error(Code::environment, source.string(), "cannot be read to its end");
  return "sha256:" + hash.hex();
}

bool is_file(const fs::path& path) {
  std::error_code ignored; // whoever opens it next says what is wrong
  return fs::is_regular_file(path, ignored);
}

// There already, and whole: a damaged blob is written anew.
bool holds_blob(const fs::path& registry, const std::string& digest, std::uint64_t size_bytes) {
  const fs::path path = blob_path(registry, digest);
  std::error_code ignored;
  return is_file(path) && fs::file_size(path, ignored) == size_bytes && "sha256:" + sha256_file(path) == digest;
}

void protect(const fs::path& blob) {
  std::error_code ignored; // a courtesy: blobs are checked by digest whatever their mode
  using fs::perms;
  fs::permissions(blob, perms::owner_write | perms::group_write | perms::others_write, fs::perm_options::remove,
                  ignored);
}

FileRecord record_of(const PackageFile& file) {
  if (!is_file(file.source))
    throw Error(Code::not_found, file.source.string(), "is not there, or is no regular file",
                "check what the package lists");
  std::error_code problem;
  return {file.path, file.role, "sha256:" + sha256_file(file.source), fs::file_size(file.source, problem)};
}

FileRecord store(const fs::path& registry, const PackageFile& file, const Registry::Observer& observer) {
  FileRecord record = record_of(file);
  if (holds_blob(registry, record.digest, record.size_bytes)) return record;
  AtomicFile target(blob_path(registry, record.digest));
  observe(observer, "blob opened");
  const std::string copied = copy_and_hash(file.source, target);
  if (copied != record.digest)
    throw Error(Code::environment, file.source.string(), "changed while it was being published",
                "publish again when nobody writes to it");
  observe(observer, "blob written");
  target.commit();
  protect(blob_path(registry, record.digest));
  observe(observer, "blob in place");
  return record;
}

void store_text(const fs::path& registry, const std::string& digest, const std::string& text,
                const Registry::Observer& observer) {
  if (holds_blob(registry, digest, text.size())) return;
  AtomicFile target(blob_path(registry, digest));
  target.write(text);
  observe(observer, "entry written");
  target.commit();
  protect(blob_path(registry, digest));
  observe(observer, "entry in place");
}

void refuse_collision(const fs::path& registry, const std::string& name) {
  std::error_code problem;
  for (const auto& item : fs::directory_iterator(registry / "index", problem)) {
    const std::string other = item.path().stem().string();
    if (item.path().extension() == ".jsonl" && other != name && collision_key(other) == collision_key(name) &&
        read_index(registry, other))
      throw Error(Code::usage, rules::kName,
                  fmt::format("\"{}\" differs from the published \"{}\" only in - and _", name, other),
                  "choose a name that nobody can mistake for it");
  }
}

// A version stands for ever. Only another platform's build of the same source may join it.
void refuse_taken(const PublishedPackage& package, const Draft& draft) {
  if (package.kind != draft.kind)
    throw Error(
        Code::incompatible, rules::kKind,
        fmt::format("{} is a {} here, the draft is a {}", draft.name, kind_name(package.kind), kind_name(draft.kind)),
        "choose another name");
  for (const PublishedVersion& published : package.versions) {
    if (published.version != draft.version) continue;
    const std::string title = draft.name + " " + draft.version.text();
    if (draft.kind != Kind::plugin)
      throw Error(Code::usage, rules::kPublished,
                  title + " is published already, and a published version never changes",
                  draft.kind == Kind::expert ? "raise the version in its expert.json" : "raise the version");
    if (published.source != draft.source)
      throw Error(Code::usage, rules::kPublished,
                  fmt::format("{} is published from source {}, this build is from source {}", title, published.source,
                              draft.source),
                  "raise the version, or build from the published source");
    for (const Build& build : published.builds)
      if (build.platform == draft.platform)
        throw Error(Code::usage, rules::kPublished,
                    fmt::format("{} is published already for {}", title, draft.platform), "raise the version");
  }
}

Entry entry_of(const Draft& draft, std::vector<FileRecord> files) {
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  Entry entry{.kind = draft.kind,
              .name = draft.name,
              .version = draft.version,
              .published = utc_now(),
              .summary = draft.summary,
              .license = draft.license,
              .files = std::move(files),
              .manifest = draft.manifest,
              .platform = draft.kind == Kind::plugin ? draft.platform : "",
              .source = draft.kind == Kind::plugin ? draft.source : "",
              .digest = ""};
  const std::string bytes = entry.bytes();
  if (bytes.size() > kEntryLimitBytes)
    throw Error(Code::usage, rules::kFormat,
                fmt::format("{}: its entry has {} bytes, at most {} are allowed", entry.title(), bytes.size(),
                            kEntryLimitBytes),
                "shorten its manifest");
  return Entry::parse(bytes, "the entry to be"); // what is published can be read again
}

Event change(Event::What what, const PublishedPackage& package, const Version& version, const std::string& reason) {
  Event event;
  event.what = what;
  event.kind = package.kind;
  event.name = package.name;
  event.version = version;
  event.time = utc_now();
  event.reason = reason;
  return event;
}

void set_yanked(const fs::path& registry, const std::string& name, const Version& version, bool yanked,
                const std::string& reason) {
  const FileLock lock(registry / ".lock");
  const PublishedPackage package = Registry(registry).show(name);
  for (const PublishedVersion& published : package.versions) {
    if (published.version != version) continue;
    if (published.yanked == yanked)
      throw Error(Code::usage, rules::kPublished,
                  fmt::format("{} {} {}", name, version.text(), yanked ? "is yanked already" : "is not yanked"),
                  "nothing is left to do");
    append_event(registry, change(yanked ? Event::What::yank : Event::What::unyank, package, version, reason), {});
    return;
  }
  throw Error(Code::not_found, rules::kMissing, fmt::format("{} {} is not published", name, version.text()),
              "see what is: tenon show " + name);
}

} // namespace

void Registry::check(const Draft& draft) const {
  require_draft(draft);
  refuse_collision(path_, draft.name);
  if (const auto package = read_index(path_, draft.name)) refuse_taken(*package, draft);
  std::vector<FileRecord> files;
  for (const PackageFile& file : draft.files) files.push_back(record_of(file));
  require_named_digests(entry_of(draft, std::move(files)));
}

Entry Registry::publish(const Draft& draft, const Observer& observer) const {
  require_draft(draft);
  const FileLock lock(path_ / ".lock");
  observe(observer, "locked");
  remove_temporaries_in(path_ / "blobs");
  refuse_collision(path_, draft.name);
  if (const auto package = read_index(path_, draft.name)) refuse_taken(*package, draft);
  std::vector<FileRecord> files;
  for (const PackageFile& file : draft.files) files.push_back(store(path_, file, observer));
  Entry entry = entry_of(draft, std::move(files));
  require_named_digests(entry);
  store_text(path_, entry.digest, entry.bytes(), observer);
  Event event;
  event.kind = entry.kind;
  event.name = entry.name;
  event.version = entry.version;
  event.time = entry.published;
  event.entry = entry.digest;
  event.platform = entry.platform;
  event.source = entry.source;
  append_event(path_, event, observer);
  return entry;
}

void Registry::yank(const std::string& name, const Version& version, const std::string& reason) const {
  set_yanked(path_, name, version, true, reason);
}

void Registry::unyank(const std::string& name, const Version& version) const {
  set_yanked(path_, name, version, false, "");
}

} // namespace tenon
