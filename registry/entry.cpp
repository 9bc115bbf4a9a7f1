#include "registry/fields.hpp"
#include "registry/package.hpp"
#include "registry/rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace tenon {
namespace {

constexpr std::size_t kFilesLimit = 4096;

// "2026-11-22T02:43:56Z"
bool is_utc_time(std::string_view text) {
  constexpr std::string_view form = "dddd-dd-ddTdd:dd:ddZ";
  if (text.size() != form.size()) return false;
  for (std::size_t i = 0; i < form.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (form[i] == 'd' ? !digit : text[i] != form[i]) return false;
  }
  return true;
}

FileRecord file_of(const JsonReader& reader) {
  FileRecord file{reader.at("path").string(), reader.at("role").string(), digest_at(reader.at("digest")), 0};
  if (const std::string problem = package_path_problem(file.path); !problem.empty())
    reader.at("path").fail("this path cannot stand in a package: " + problem);
  if (!is_role(file.role)) reader.at("role").fail("need a short lower-case word");
  const std::int64_t size = reader.at("size").integer();
  if (size < 0) reader.at("size").fail("need 0 or more");
  file.size_bytes = static_cast<std::uint64_t>(size);
  return file;
}

void read_files(const JsonReader& list, Entry& entry) {
  if (list.array().size() > kFilesLimit)
    list.fail(fmt::format("found {} files, at most {} are allowed", list.array().size(), kFilesLimit));
  for (std::size_t i = 0; i < list.size(); ++i) {
    entry.files.push_back(file_of(list.at(i)));
    if (i > 0 && entry.files[i - 1].path >= entry.files[i].path)
      list.at(i).fail("files need to stand in the order of their paths, each once");
  }
}

void read_plugin_fields(const JsonReader& reader, Entry& entry) {
  entry.platform = line_at(reader.at("platform"));
  entry.source = digest_at(reader.at("source"));
  if (entry.platform.empty()) reader.at("platform").fail("need the platform this build is for");
}

} // namespace

bool is_role(std::string_view role) {
  return !role.empty() && role.size() <= 32 &&
         std::all_of(role.begin(), role.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; });
}

Entry Entry::parse(std::string_view bytes, std::string_view where) {
  const std::string unit = rules::format(std::string(where));
  const json::value value = parse_json(bytes, unit);
  const JsonReader reader(value, unit);
  if (const std::int64_t schema = reader.at("schema").integer(); schema != kEntrySchema)
    reader.at("schema").fail(fmt::format("found {}, need {}", schema, kEntrySchema),
                             schema > kEntrySchema ? "update Tenon" : "");
  Entry entry;
  entry.kind = kind_at(reader.at("kind"));
  entry.name = name_at(reader.at("name"), entry.kind);
  entry.version = version_at(reader.at("version"));
  entry.published = reader.at("published").string();
  if (!is_utc_time(entry.published)) reader.at("published").fail("need a time as 2026-01-31T12:00:00Z");
  entry.summary = line_at(reader.at("summary"));
  entry.license = line_at(reader.at("license"));
  read_files(reader.at("files"), entry);
  entry.manifest = reader.at("manifest").object();
  if (entry.kind == Kind::plugin) read_plugin_fields(reader, entry);
  entry.digest = digest_of_text(bytes);
  return entry;
}

std::string Entry::bytes() const {
  json::array list;
  for (const FileRecord& file : files)
    list.push_back(json::object{{"path", file.path},
                                {"role", file.role},
                                {"digest", file.digest},
                                {"size", static_cast<std::int64_t>(file.size_bytes)}});
  json::object object{{"schema", kEntrySchema},    {"kind", kind_name(kind)}, {"name", name},
                      {"version", version.text()}, {"published", published},  {"summary", summary},
                      {"license", license},        {"files", list},           {"manifest", manifest}};
  if (kind == Kind::plugin) {
    object["platform"] = platform;
    object["source"] = source;
  }
  return canonical_json(object);
}

const FileRecord& Entry::file(std::string_view path) const {
  for (const FileRecord& file : files)
    if (file.path == path) return file;
  throw Error(Code::not_found, rules::kMissing, fmt::format("{} holds no file {}", title(), path));
}

std::vector<FileRecord> Entry::files_with_role(std::string_view role) const {
  std::vector<FileRecord> found;
  for (const FileRecord& file : files)
    if (file.role == role) found.push_back(file);
  return found;
}

const FileRecord& Entry::file_with_role(std::string_view role) const {
  const FileRecord* found = nullptr;
  for (const FileRecord& file : files) {
    if (file.role != role) continue;
    if (found)
      throw Error(Code::integrity, rules::format(title()),
                  fmt::format("both {} and {} have the role {}, need one", found->path, file.path, role));
    found = &file;
  }
  if (!found) throw Error(Code::not_found, rules::kMissing, fmt::format("{} holds no {} file", title(), role));
  return *found;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

} // namespace tenon
