// What the architectures made of residual blocks promise, each in both forms: on the base, and in the middle's place.
#include "registry/base/error.hpp"
#include "tests/support/plugin_expert.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

constexpr double kTolerance = 1e-5; // float32, values around 1
constexpr std::int64_t kLength = 23;

// Depth 2 and odd widths, so that layers and rows cannot be mistaken for each other.
std::vector<PluginKind> every_kind() {
  std::vector<PluginKind> out;
  for (const char* form : {"", "_middle"}) {
    const auto add = [&](const std::string& name, json::object config) {
      config["depth"] = 2, config["inner_width"] = 10;
      out.push_back({"tenon_" + name, "tenon." + name + form, config});
    };
    add("mlp", {});
    add("mixture", {{"experts", 3}, {"balance", 0}}); // a loss of balance is no part of what differences see
    add("convolution", {{"kernel_size", 4}});
    add("recurrent", {{"cell", "gru"}});
    add("recurrent", {{"cell", "lstm"}});
    add("state_space", {{"state_size", 3}, {"kernel_size", 3}});
  }
  return out;
}

at::Tensor h_rows(std::int64_t count = kLength) { return normal("h", {count, kPluginWidth}, 1.5); }
at::Tensor base_rows(std::int64_t count = kLength) { return normal("base", {count, kPluginWidth}, 1.5); }

at::Tensor whole(const LoadedExpert& expert, const at::Tensor& h_TC, const at::Tensor& base_TC) {
  const tenon_span span{0, h_TC.size(0), 0, nullptr};
  return expert.forward(h_TC, base_TC, {&span, 1});
}

// In inference, with every parameter away from its birth.
at::Tensor whole(const PluginKind& kind, const at::Tensor& h_TC, const at::Tensor& base_TC) {
  const auto expert = kind.grown();
  expert->prepare(TENON_INFERENCE);
  return whole(*expert, h_TC, base_TC);
}

// Piece by piece over kept state.
at::Tensor in_pieces(const LoadedExpert& expert, const at::Tensor& h_TC, const at::Tensor& base_TC,
                     const std::vector<std::int64_t>& lengths) {
  ModuleState state(expert.layout());
  std::vector<at::Tensor> out;
  std::int64_t position = 0;
  for (const std::int64_t length : lengths) {
    const tenon_span span{0, length, position, to_handle(&state)};
    out.push_back(expert.forward(h_TC.narrow(0, position, length), base_TC.narrow(0, position, length), {&span, 1}));
    position += length;
  }
  return at::cat(out);
}

} // namespace

TEST_CASE("at birth an expert on the base says what the base says, and a middle changes every position") {
  at::NoGradGuard no_grad;
  for (const PluginKind& kind : every_kind()) {
    INFO(kind.architecture);
    const auto expert = kind.born();
    expert->prepare(TENON_INFERENCE);
    const at::Tensor y = whole(*expert, h_rows(), base_rows());
    if (expert->uses_base_output())
      CHECK(y.equal(base_rows()));
    else
      CHECK((y - h_rows()).abs().amax(1).min().item<double>() > 0.01);
  }
}

TEST_CASE("outputs are the same in training, whole, and in any split over kept state") {
  at::NoGradGuard no_grad;
  for (const PluginKind& kind : every_kind()) {
    INFO(kind.architecture);
    const auto expert = kind.grown();
    expert->prepare(TENON_TRAINING);
    const at::Tensor trained = whole(*expert, h_rows(), base_rows());
    expert->prepare(TENON_INFERENCE);
    CHECK(largest_difference(whole(*expert, h_rows(), base_rows()), trained) < kTolerance);
    for (const std::vector<std::int64_t>& lengths :
         {std::vector<std::int64_t>{kLength}, {1, kLength - 1}, {2, 1, 17, 3}, std::vector<std::int64_t>(kLength, 1)})
      CHECK(largest_difference(in_pieces(*expert, h_rows(), base_rows(), lengths), trained) < kTolerance);
  }
}

TEST_CASE("what an expert remembers takes as much after many positions as after one, and no step reads anything else") {
  at::NoGradGuard no_grad;
  const std::int64_t many = 600;
  for (const PluginKind& kind : every_kind()) {
    INFO(kind.architecture);
    const auto expert = kind.grown();
    expert->prepare(TENON_INFERENCE);
    CHECK(expert->kept_numbers() == 0); // no row of any position
    const auto pool = BlockPool::make();
    ModuleState state(expert->layout(), pool);
    std::int64_t position = 0;
    const auto read = [&](ModuleState& into, std::int64_t count) {
      const tenon_span span{0, count, position, to_handle(&into)};
      return expert->forward(h_rows(count), base_rows(count), {&span, 1});
    };
    const auto values = [&] {
      std::vector<at::Tensor> out;
      for (std::size_t slot = 0; slot < state.slots(); ++slot) out.push_back(state.value(slot).clone());
      return out;
    };
    (void)read(state, 1), position += 1;
    const std::vector<at::Tensor> after_one = values();
    (void)read(state, many), position += many;
    const std::vector<at::Tensor> after_many = values();
    for (std::size_t slot = 0; slot < state.slots(); ++slot) CHECK(after_many[slot].sizes() == after_one[slot].sizes());
    CHECK(pool->peak_bytes() == 0);

    // Another sequence, given these numbers and nothing that was read, goes on to the same bits.
    ModuleState given(expert->layout(), pool);
    given.restore(0, position, after_many);
    CHECK(read(given, 1).equal(read(state, 1)));
  }
}

TEST_CASE("sequences of several lengths in one call give what each gives apart, with state and without") {
  at::NoGradGuard no_grad;
  const std::vector<std::int64_t> lengths = {3, 11, 1, 8}; // 23 rows
  for (const PluginKind& kind : every_kind()) {
    const auto expert = kind.grown();
    expert->prepare(TENON_INFERENCE);
    for (const bool with_state : {false, true}) {
      INFO(kind.architecture << (with_state ? " with state" : " without"));
      std::vector<ModuleState> states;
      for (std::size_t i = 0; i < lengths.size(); ++i) states.emplace_back(expert->layout());
      std::vector<at::Tensor> h, base, apart;
      std::vector<tenon_span> spans;
      std::int64_t offset = 0;
      for (std::size_t i = 0; i < lengths.size(); ++i) {
        const at::Tensor h_TC = h_rows().narrow(0, offset, lengths[i]),
                         base_TC = base_rows().narrow(0, offset, lengths[i]);
        // With state, the first position has been read before.
        const std::int64_t read = with_state && lengths[i] > 1 ? 1 : 0;
        apart.push_back(whole(*expert, h_TC, base_TC).slice(0, read));
        const tenon_span first{0, read, 0, to_handle(&states[i])};
        if (read) (void)expert->forward(h_TC.narrow(0, 0, 1), base_TC.narrow(0, 0, 1), {&first, 1});
        h.push_back(h_TC.slice(0, read));
        base.push_back(base_TC.slice(0, read));
        spans.push_back({spans.empty() ? 0 : spans.back().offset + spans.back().length, lengths[i] - read, read,
                         with_state ? to_handle(&states[i]) : nullptr});
        offset += lengths[i];
      }
      const at::Tensor together = expert->forward(at::cat(h), at::cat(base), spans);
      CHECK(largest_difference(together, at::cat(apart)) < kTolerance);
    }
  }
}

TEST_CASE("a batch in training gives what each of its sequences gives apart") {
  at::NoGradGuard no_grad;
  for (const PluginKind& kind : every_kind()) {
    INFO(kind.architecture);
    const auto expert = kind.grown();
    expert->prepare(TENON_TRAINING);
    const at::Tensor h = h_rows(21), base = base_rows(21);
    const std::vector<tenon_span> spans = {{0, 7, 0, nullptr}, {7, 7, 0, nullptr}, {14, 7, 0, nullptr}};
    const at::Tensor together = expert->forward(h, base, spans);
    for (std::int64_t i = 0; i < 3; ++i)
      CHECK(largest_difference(together.narrow(0, 7 * i, 7),
                               whole(*expert, h.narrow(0, 7 * i, 7), base.narrow(0, 7 * i, 7))) < kTolerance);
  }
}

TEST_CASE("a position reaches itself and those that follow, as far as the context says") {
  at::NoGradGuard no_grad;
  const std::int64_t length = 70, changed = 4;
  for (PluginKind kind : every_kind()) {
    INFO(kind.architecture);
    const ExpertContext& context = kind.facts().context;
    if (context.kind == ExpertContext::Kind::window) kind.config["depth"] = 9, kind.config["kernel_size"] = 8; // 64
    const at::Tensor h = h_rows(length), base = base_rows(length);
    at::Tensor other = h.clone();
    other[changed].add_(3.0);
    const at::Tensor moved_T = (whole(kind, other, base) - whole(kind, h, base)).abs().amax(1);
    // What goes through the same perceptron of a mixture is multiplied together, and another number of rows may round
    // otherwise.
    const double still = kind.library == "tenon_mixture" ? 1e-6 : 0.0;
    CHECK(moved_T.narrow(0, 0, changed).max().item<double>() <= still);
    CHECK(moved_T[changed].item<double>() > 1e-3);
    switch (context.kind) {
      case ExpertContext::Kind::token: CHECK(moved_T.slice(0, changed + 1).max().item<double>() <= still); break;
      case ExpertContext::Kind::window:
        CHECK(moved_T[changed + 3].item<double>() > 1e-4);
        CHECK(moved_T.slice(0, changed + context.window).max().item<double>() == 0.0);
        break;
      default: CHECK(moved_T[changed + 5].item<double>() > 1e-5);
    }
  }
}

TEST_CASE("a window expert that starts behind a gap is right again after a window, with a new state and without") {
  at::NoGradGuard no_grad;
  const std::int64_t length = 90, from = 10;
  for (PluginKind kind : every_kind()) {
    if (kind.facts().context.kind != ExpertContext::Kind::window) continue;
    INFO(kind.architecture);
    kind.config["depth"] = 9, kind.config["kernel_size"] = 8; // all 64 positions
    const auto expert = kind.grown();
    expert->prepare(TENON_INFERENCE);
    const at::Tensor h = h_rows(length), base = base_rows(length),
                     expected = whole(*expert, h, base).slice(0, from + kind.facts().context.window - 1);
    for (const bool with_state : {false, true}) {
      ModuleState state(expert->layout());
      const tenon_span span{0, length - from, from, with_state ? to_handle(&state) : nullptr};
      const at::Tensor y = expert->forward(h.slice(0, from), base.slice(0, from), {&span, 1});
      CHECK(largest_difference(y.slice(0, kind.facts().context.window - 1), expected) < kTolerance);
    }
  }
}

TEST_CASE("gradients reach every parameter, h and the base, and agree with finite differences") {
  for (const PluginKind& kind : every_kind()) {
    const auto expert = kind.grown();
    expert->prepare(TENON_TRAINING);
    const at::Tensor h = h_rows(7).set_requires_grad(true), base = base_rows(7).set_requires_grad(true);
    const at::Tensor direction = normal("direction", {7, kPluginWidth}, 1.0);
    const auto value = [&] { return whole(*expert, h, base).to(at::kDouble).mul(direction).sum(); };
    value().backward();
    std::vector<std::pair<std::string, at::Tensor>> inputs;
    inputs.emplace_back("h", h);
    if (expert->uses_base_output()) inputs.emplace_back("base", base);
    for (const ExpertParameter& parameter : expert->parameters()) inputs.emplace_back(parameter.name, parameter.tensor);
    at::NoGradGuard no_grad;
    for (auto& [name, input] : inputs) {
      INFO(kind.architecture << " " << name);
      REQUIRE(input.grad().defined());
      // Along the gradient itself and in proportion to the input, so that the numbers are well above float32's noise.
      const double length = 5e-3 * std::max(1.0, input.norm().item<double>());
      const at::Tensor step = input.grad() * (length / input.grad().norm().item<double>());
      input.add_(step);
      const double above = value().item<double>();
      input.sub_(step * 2);
      const double below = value().item<double>();
      input.add_(step);
      CHECK(step.mul(input.grad()).sum().item<double>() == Approx((above - below) / 2).epsilon(0.01));
    }
  }
}

TEST_CASE("a long scan in training neither overflows nor differs from steps") {
  at::NoGradGuard no_grad;
  PluginKind kind{"tenon_state_space", "tenon.state_space_middle", {{"depth", 1}, {"inner_width", 8}}};
  const auto expert = kind.born();
  for (const ExpertParameter& parameter : expert->parameters()) // steps so long that the state is forgotten at once
    if (parameter.name == "blocks.0.scan.dt_proj.bias") at::Tensor(parameter.tensor).slice(0, 4).fill_(20.0);
  const std::int64_t length = 1000;
  expert->prepare(TENON_TRAINING);
  const at::Tensor trained = whole(*expert, h_rows(length), base_rows(length));
  CHECK(trained.isfinite().all().item<bool>());
  expert->prepare(TENON_INFERENCE);
  CHECK(largest_difference(whole(*expert, h_rows(length), base_rows(length)), trained) < 1e-3);
}

TEST_CASE("configurations that cannot be built are refused in words") {
  struct Bad {
    std::string library, architecture;
    json::object config;
    std::vector<std::string> says;
  };
  const std::vector<Bad> all = {
      {"tenon_mlp", "tenon.mlp", {{"depth", 0}}, {"depth", "0"}},
      {"tenon_mlp", "tenon.mlp", {{"inner_width", "wide"}}, {"inner_width"}},
      {"tenon_mlp", "tenon.mlp_middle", {{"rank", 4}}, {"rank"}},
      {"tenon_mixture", "tenon.mixture", {{"experts", 3}, {"active", 4}}, {"active 4", "experts 3"}},
      {"tenon_mixture", "tenon.mixture_middle", {{"active", 1}}, {"active"}},
      {"tenon_convolution", "tenon.convolution", {{"depth", 9}, {"kernel_size", 9}}, {"see 73", "need 64"}},
      {"tenon_convolution", "tenon.convolution_middle", {{"kernel_size", 1}}, {"kernel_size"}},
      {"tenon_recurrent", "tenon.recurrent", {{"cell", "elman"}}, {"cell"}},
      {"tenon_state_space", "tenon.state_space", {{"state_size", 0}}, {"state_size"}},
  };
  for (const Bad& bad : all) {
    INFO(bad.architecture << " " << canonical_json(bad.config));
    std::string what;
    try {
      (void)PluginKind{bad.library, bad.architecture, bad.config}.born();
    } catch (const Error& error) {
      what = error.what();
    }
    for (const std::string& words : bad.says) CHECK_THAT(what, Catch::Contains(words));
  }
}

} // namespace tenon::test
