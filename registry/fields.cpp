#include "registry/fields.hpp"

namespace tenon {

std::string digest_at(const JsonReader& reader) {
  std::string digest = reader.string();
  if (!is_digest(digest)) reader.fail("need sha256: and 64 lower-case hex digits");
  return digest;
}

Version version_at(const JsonReader& reader) {
  const auto version = Version::try_parse(reader.string());
  if (!version) reader.fail("need a semantic version, as 1.2.0 is");
  return *version;
}

Kind kind_at(const JsonReader& reader) {
  const auto kind = kind_of(reader.string());
  if (!kind) reader.fail("need model, plugin or expert");
  return *kind;
}

std::string name_at(const JsonReader& reader) {
  std::string name = reader.string();
  if (const std::string problem = name_problem(name); !problem.empty()) reader.fail("no package name: " + problem);
  return name;
}

std::string name_at(const JsonReader& reader, Kind kind) {
  std::string name = reader.string();
  if (const std::string problem = name_problem(name, kind); !problem.empty())
    reader.fail("cannot name " + a_kind(kind) + ": " + problem);
  return name;
}

std::string line_at(const JsonReader& reader) {
  std::string line = reader.string();
  if (const std::string problem = line_problem(line); !problem.empty()) reader.fail(problem + ", need one plain line");
  return line;
}

} // namespace tenon
