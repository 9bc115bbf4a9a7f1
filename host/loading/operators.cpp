// The operators this program has, read from LibTorch's dispatcher.
#include "host/loading/platform.hpp"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>

namespace tenon {

std::vector<std::string> host_operators() {
  std::vector<std::string> out;
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (name.name.starts_with("tenon::")) out.push_back(name.name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

} // namespace tenon
