#include "host/training/package_folder.hpp"

#include "host/loading/bind.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

namespace tenon {

void write_package(const std::filesystem::path& folder, ExpertManifest manifest, const Subject& subject,
                   const std::optional<Row>& row, const std::optional<Profile>& profile) {
  write_weights(folder / "weights.safetensors", subject.own());
  manifest.weights = weight_records(*subject.expert);
  manifest.files = {{"weights.safetensors", "weights"}};
  if (row) {
    write_row(folder / "row.safetensors", *row);
    manifest.row = "sha256:" + sha256_file(folder / "row.safetensors");
    manifest.files.push_back({"row.safetensors", "row"});
  }
  if (profile) {
    write_profile(folder / "profile.safetensors", *profile);
    manifest.profile = "sha256:" + sha256_file(folder / "profile.safetensors");
    manifest.files.push_back({"profile.safetensors", "profile"});
  }
  write_file(folder / "expert.json", pretty_json(manifest.to_json()));
}

} // namespace tenon
