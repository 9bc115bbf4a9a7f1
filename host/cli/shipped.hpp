// The plugins that come with Tenon, published into a registry like anybody else's.
#pragma once

#include "registry/registry.hpp"

namespace tenon {

// Publishes those the registry does not have yet for this platform. Returns how many.
std::size_t publish_shipped_plugins(const Registry& registry);

} // namespace tenon
