// The files of an expert's package, as `tenon publish` takes them: expert.json, weights.safetensors and, where there
// are any, row.safetensors and profile.safetensors. expert.json comes last: a folder that has it is whole. Thread: one.
#pragma once

#include "host/routing/router.hpp"
#include "host/training/evidence.hpp"
#include "host/training/subject.hpp"

#include <filesystem>
#include <optional>

namespace tenon {

// manifest: everything but weights, row, profile and files, which are filled in.
// Errors: environment, numeric (a value is not finite).
void write_package(const std::filesystem::path& folder, ExpertManifest manifest, const Subject& subject,
                   const std::optional<Row>& row, const std::optional<Profile>& profile);

} // namespace tenon
