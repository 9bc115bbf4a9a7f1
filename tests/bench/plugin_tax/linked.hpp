// The architectures of the bench as classes of this program: their plugins' own sources, linked statically.
#pragma once

#include <tenon/expert.hpp>

#include <memory>

namespace tenon::bench {

// Null for an architecture that is not linked in.
std::shared_ptr<Expert> make_linked(const std::string& architecture, const Setup& setup);

} // namespace tenon::bench
