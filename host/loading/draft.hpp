// A plugin's library as something to publish: its facts are the manifest, its platform and source stand beside it.
// Thread: any.
#pragma once

#include "host/loading/facts.hpp"
#include "registry/package.hpp"

#include <filesystem>

namespace tenon {

// Errors: not_found, integrity (no facts in it).
Draft plugin_draft(const std::filesystem::path& library);

} // namespace tenon
