// Why a request finds nothing, and what there is instead: the words of the registry's refusals.
// Thread: any.
#pragma once

#include "registry/registry.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tenon {

// "did you mean legal, legal-de?", or where to look.
std::string near_names(std::string_view name, const std::vector<std::string>& known);
// "legal 1.0.0 was yanked: leaks names"
std::string yanked_text(const std::string& name, const PublishedVersion& version);
// No version in range, or only yanked ones.
Error no_version_error(const PublishedPackage& package, const PackageRequest& request);
// The best version in range has builds for other platforms only.
Error no_build_error(const PublishedPackage& package, const PublishedVersion& version, std::string_view platform);

} // namespace tenon
