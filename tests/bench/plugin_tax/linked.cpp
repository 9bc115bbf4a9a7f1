#include "tests/bench/plugin_tax/linked.hpp"

#include <tenon/native.hpp>

// The plugins' sources without their C tables: only the classes are wanted.
#undef TENON_PLUGIN
#define TENON_PLUGIN(...) static_assert(true)
#include "plugins/mlp/mlp.cpp"
#include "plugins/recurrent/recurrent.cpp"
#include "plugins/transformer/transformer.cpp"

namespace tenon::bench {

std::shared_ptr<Expert> make_linked(const std::string& architecture, const Setup& setup) {
  if (architecture == "tenon.transformer") return std::make_shared<TransformerExpert>(setup);
  if (architecture == "tenon.mlp_middle") return std::make_shared<nn::AsMiddle<MlpBlock>>(setup);
  if (architecture == "tenon.recurrent_middle") return std::make_shared<nn::AsMiddle<RecurrentBlock>>(setup);
  return nullptr;
}

} // namespace tenon::bench
