#include "host/execution/catch_up.hpp"

#include <algorithm>

namespace tenon {
namespace {

std::vector<Stretch> windows(std::int64_t window, std::span<const std::int64_t> chosen, const Seen& seen) {
  std::vector<Stretch> out;
  for (const std::int64_t position : chosen) {
    const std::int64_t start = std::max<std::int64_t>(0, position - window + 1);
    // A state restarted behind `start` has not seen all of this window, though it stands beyond it.
    const bool whole = seen.first == 0 || seen.first <= start;
    if (whole && position < seen.done) continue; // it has been run
    if (!out.empty() && start <= out.back().last)
      out.back().last = position + 1;
    else if (out.empty() && whole && start <= seen.done)
      out.push_back({seen.done, position + 1, false});
    else
      out.push_back({start, position + 1, true});
  }
  return out;
}

} // namespace

std::vector<Stretch> stretches(const ExpertContext& context, std::span<const std::int64_t> chosen, const Seen& seen) {
  if (chosen.empty()) return {};
  if (context.kind == ExpertContext::Kind::window) return windows(context.window, chosen, seen);
  if (chosen.back() < seen.done) return {};
  return {{seen.done, chosen.back() + 1, false}};
}

} // namespace tenon
