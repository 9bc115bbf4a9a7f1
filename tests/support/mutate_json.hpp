// Damages a JSON value and keeps it JSON: one member anywhere becomes something else, goes, or gets a neighbour.
#pragma once

#include "registry/base/json.hpp"
#include "tests/support/mutate.hpp"

#include <limits>
#include <vector>

namespace tenon {

inline void collect_values(json::value& value, std::vector<json::value*>& all) {
  all.push_back(&value);
  if (value.is_object()) {
    for (auto& member : value.get_object()) collect_values(member.value(), all);
  } else if (value.is_array()) {
    for (json::value& element : value.get_array()) collect_values(element, all);
  }
}

inline json::value odd_value(Mutator& mutator) {
  switch (mutator.below(12)) {
    case 0: return nullptr;
    case 1: return true;
    case 2: return "";
    case 3: return json::array{};
    case 4: return json::object{};
    case 5: return -1;
    case 6: return std::numeric_limits<std::int64_t>::max();
    case 7: return std::numeric_limits<std::int64_t>::min();
    case 8: return std::numeric_limits<std::uint64_t>::max();
    case 9: return 1e308;
    case 10: return static_cast<std::int64_t>(1) << mutator.below(62);
    default: return static_cast<std::int64_t>(mutator.below(300));
  }
}

inline std::string mutate_json(Mutator& mutator, const std::string& text) {
  json::value value = parse_json(text, "valid");
  for (std::uint64_t n = 1 + mutator.below(2); n > 0; --n) {
    std::vector<json::value*> all;
    collect_values(value, all);
    json::value& victim = *all[mutator.below(all.size())];
    const json::value other = *all[mutator.below(all.size())];
    if (victim.is_object() && !victim.get_object().empty() && mutator.below(2) == 0) {
      json::object& object = victim.get_object();
      object.erase(object.begin() + static_cast<std::ptrdiff_t>(mutator.below(object.size())));
    } else {
      victim = mutator.below(3) == 0 ? other : odd_value(mutator);
    }
  }
  return canonical_json(value);
}

} // namespace tenon
