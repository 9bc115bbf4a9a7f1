// What the boundary costs: the same expert as a plugin (a shared library behind its C table, its answer checked) and as
// a class of this program, on the same weights, one token at a time with state, the two in turn, each round between two
// probes of the machine. A round's ratio is that of the two medians; the median of the rounds is printed, then what the
// machine could do meanwhile, and both outputs must be equal bit for bit. Never a test.
//
//   tenon_plugin_tax_bench PLUGINS [ROUNDS] [TOKENS]
//
//   PLUGINS   the folder of the built plugins (.build/lib/tenon/plugins)
#include "host/composition/loader.hpp"
#include "kernels/packed_forms.hpp"
#include "tests/bench/machine.hpp"
#include "tests/bench/plugin_tax/linked.hpp"

#include <tenon/native.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace tenon::bench {
namespace {

constexpr std::int64_t kWidth = 576; // SmolLM2-135M's, as all sizes below

struct Kind {
  const char* library;
  const char* architecture;
  json::object config;
};
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"tenon_transformer",
       "tenon.transformer",
       {{"blocks", 10}, {"heads", 9}, {"kv_heads", 3}, {"head_dim", 64}, {"ffn_width", 1536}}},
      {"tenon_mlp", "tenon.mlp_middle", {{"depth", 1}, {"inner_width", 1536}}},
      {"tenon_recurrent", "tenon.recurrent_middle", {{"depth", 1}, {"inner_width", 512}, {"cell", "lstm"}}}};
  return all;
}

// The expert twice, on the same weights.
class Pair {
 public:
  Pair(const PluginLoader& loader, const std::filesystem::path& folder, const Kind& kind, bool packed) {
    const Plugin& plugin = loader.load({folder / (std::string(kind.library) + ".so"), nullptr});
    const ArchitectureFacts* facts = plugin.facts.architecture(kind.architecture);
    values_ = json::object{{"config", facts->complete(kind.config)},
                           {"model", {{"width", kWidth}, {"first", 10}, {"last", 20}, {"dtype", "float32"}}}};
    plugin_ = std::make_unique<LoadedExpert>(
        plugin.table, ExpertSpec{kind.architecture, kind.architecture, values_, mean_C_, deviation_C_, facts->context,
                                 facts->uses_base_output()});
    const auto* raw = reinterpret_cast<const tenon_values*>(&values_);
    linked_ = make_linked(kind.architecture, Setup{Config(raw, "/config"), Config(raw, "/model"), Config(raw, "/base"),
                                                   mean_C_, deviation_C_});
    plugin_->initialize(1);
    auto mine = linked_->named_parameters();
    for (const ExpertParameter& parameter : plugin_->parameters()) {
      mine.find(parameter.name)->set_data(parameter.tensor.detach());
      if (packed) add_form(parameter.tensor);
    }
    plugin_->prepare(TENON_INFERENCE);
    linked_->train(false);
  }
  ~Pair() {
    for (const float* weights : packed_) remove_packed_form(weights);
  }

  at::Tensor by_plugin(const at::Tensor& h_NC, std::span<const tenon_span> spans) const {
    return plugin_->forward(h_NC, at::Tensor(), spans);
  }
  at::Tensor by_class(const at::Tensor& h_NC, std::span<const tenon_span> spans) const {
    return linked_->forward(Input{h_NC, at::Tensor(), {spans.data(), spans.size()}});
  }
  ModuleState state() const { return ModuleState(plugin_->layout()); }

 private:
  void add_form(const at::Tensor& weights) {
    const auto format = cpu::PackedFormat::int8g32;
    if (weights.dim() != 2) return;
    const auto bytes = cpu::packed_bytes(format, weights.size(0), weights.size(1));
    if (!bytes) return;
    std::byte* memory = arena_.take<std::byte>(static_cast<std::int64_t>(*bytes));
    const float* numbers = weights.data_ptr<float>();
    cpu::pack(format, weights.size(0), weights.size(1), {numbers, static_cast<std::size_t>(weights.numel())},
              {memory, *bytes});
    add_packed_form(numbers, {{format, weights.size(0), weights.size(1), memory}, nullptr});
    packed_.push_back(numbers);
  }

  json::value values_;
  at::Tensor mean_C_ = at::zeros({kWidth}), deviation_C_ = at::ones({kWidth});
  std::unique_ptr<LoadedExpert> plugin_;
  std::shared_ptr<Expert> linked_;
  cpu::Arena arena_;
  std::vector<const float*> packed_;
};

using Forward = at::Tensor (Pair::*)(const at::Tensor&, std::span<const tenon_span>) const;

// One of the two going through a text, token by token.
struct Walk {
  Walk(const Pair& pair, Forward forward) : pair(pair), forward(forward), state(pair.state()) {}

  at::Tensor step(const at::Tensor& h_TC, std::int64_t t) {
    const tenon_span span{0, 1, t, to_handle(&state)};
    const at::Tensor h_1C = h_TC.narrow(0, t, 1);
    at::Tensor y_1C;
    seconds.push_back(cpu::bench::seconds([&] { y_1C = (pair.*forward)(h_1C, {&span, 1}); }));
    state.advance(1);
    return y_1C;
  }
  double median() const { return cpu::bench::median(seconds); }

  const Pair& pair;
  Forward forward;
  ModuleState state;
  std::vector<double> seconds;
};

void measure(cpu::bench::Machine& machine, const Pair& pair, const Kind& kind, const char* format, int rounds,
             const at::Tensor& h_TC) {
  std::vector<double> ratios, seconds;
  for (int round = 0; round <= rounds; ++round) { // the first warms up
    Walk plugin(pair, &Pair::by_plugin), linked(pair, &Pair::by_class);
    machine.around([&] {
      for (std::int64_t t = 0; t < h_TC.size(0); ++t) { // in turn, and each first every other time
        Walk &first = t % 2 ? plugin : linked, &second = t % 2 ? linked : plugin;
        if (!first.step(h_TC, t).equal(second.step(h_TC, t)))
          throw Error(Code::numeric, kind.architecture, "plugin and class do not compute the same");
      }
    });
    if (round > 0) ratios.push_back(plugin.median() / linked.median()), seconds.push_back(linked.median());
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  fmt::print(
      "{{\"architecture\": \"{}\", \"compute\": \"{}\", \"microseconds\": {:.1f}, \"tax\": {:.4f}, \"lowest\": "
      "{:.4f}, \"highest\": {:.4f}}}\n",
      kind.architecture, format, 1e6 * cpu::bench::median(seconds), cpu::bench::median(ratios), *low, *high);
  std::fflush(stdout);
}

void run(const std::filesystem::path& folder, int rounds, std::int64_t tokens) {
  const at::NoGradGuard no_grad;
  native::init(host_table(), nullptr);
  const std::filesystem::path scratch =
      std::filesystem::temp_directory_path() / ("tenon-tax-" + std::to_string(getpid()));
  const PluginLoader loader(host_side(host_operators()), scratch, host_table());
  const at::Tensor h_TC = at::randn({tokens, kWidth});
  at::set_num_threads(1);
  cpu::bench::Machine machine;
  for (const bool packed : {false, true})
    for (const Kind& kind : kinds())
      measure(machine, Pair(loader, folder, kind, packed), kind, packed ? "int8" : "float32", rounds, h_TC);
  machine.print();
  std::filesystem::remove_all(scratch);
}

} // namespace
} // namespace tenon::bench

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: tenon_plugin_tax_bench PLUGINS [ROUNDS] [TOKENS]\n", stderr), 2;
  try {
    tenon::bench::run(argv[1], argc > 2 ? std::atoi(argv[2]) : 21, argc > 3 ? std::atoi(argv[3]) : 200);
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
