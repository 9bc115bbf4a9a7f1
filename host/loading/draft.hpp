// A folder, or a plugin's library, as something to publish: a library's facts are the manifest, its platform and source
// stand beside it.
// Thread: any.
#pragma once

#include "host/loading/facts.hpp"
#include "registry/package.hpp"

#include <filesystem>

namespace tenon {

// As draft_from_folder(). Errors: those of it; integrity, where an expert's weights are not those its manifest names.
Draft package_draft(const std::filesystem::path& folder);
// Errors: not_found, integrity (no facts in it).
Draft plugin_draft(const std::filesystem::path& library);

} // namespace tenon
