#include "host/loading/draft.hpp"

#include "host/formats/safetensors.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/manifest.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace tenon {
namespace {

// What nobody could ever load is not published for good: the weights are those that expert.json names.
void require_weights(const Draft& draft) {
  if (draft.kind != Kind::expert) return;
  const ExpertManifest manifest = ExpertManifest::parse(draft.manifest, "expert.json");
  std::optional<SafetensorsFile> file;
  for (const PackageFile& one : draft.files)
    if (one.role == "weights") file.emplace(one.source);
  constexpr std::string_view own = "file:";
  for (const WeightRecord& weight : manifest.weights) {
    if (!weight.source.starts_with(own)) continue;
    const TensorView* found = file ? file->find(weight.source.substr(own.size())) : nullptr;
    const bool blocks = found && found->dtype == Dtype::U8; // quantised: their shape is that of bytes
    const bool same =
        found && (blocks || std::equal(found->shape.begin(), found->shape.end(), weight.shape.begin(),
                                       weight.shape.end(), [](auto a, auto b) { return std::cmp_equal(a, b); }));
    if (!same)
      throw Error(Code::integrity, draft.name,
                  fmt::format("expert.json names {} of shape ({}), its weights hold {}", weight.name,
                              fmt::join(weight.shape, ", "),
                              found ? fmt::format("({})", fmt::join(found->shape, ", ")) : std::string("none such")),
                  "train it again, or give the folder as it was written");
  }
}

} // namespace

Draft package_draft(const std::filesystem::path& folder) {
  Draft draft = draft_from_folder(folder);
  require_weights(draft);
  return draft;
}

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
