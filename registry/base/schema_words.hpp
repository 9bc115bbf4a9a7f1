// What a JSON Schema refused, in words: what was found, what is needed. Thread: pure functions.
#pragma once

#include "registry/base/json.hpp"

#include <span>
#include <string>
#include <string_view>

namespace tenon {

// rule: the validator's own sentence. path: the keys and indices from the root to the value it refuses.
// Returns one line: "/train/steps: found \"many\", need integer".
std::string in_words(const json::value& schema, const json::value& value, std::span<const std::string> path,
                     std::string_view rule);

} // namespace tenon
