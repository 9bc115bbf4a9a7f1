#include "host/loading/draft.hpp"

#include "registry/base/files.hpp"

namespace tenon {

Draft plugin_draft(const std::filesystem::path& library) {
  const MappedFile file(library);
  const Facts facts = read_facts(file.bytes(), library.filename().string());
  Draft draft;
  draft.kind = Kind::plugin;
  draft.name = facts.name;
  draft.version = facts.version;
  draft.summary = facts.summary;
  draft.license = facts.license;
  draft.manifest = facts.json;
  draft.files = {{facts.name + ".so", library, "library"}};
  draft.platform = facts.platform.text();
  draft.source = facts.source;
  return draft;
}

} // namespace tenon
