// Experts that live in the test program itself, behind the same C table as a stranger's: one of every context, and one
// that misbehaves on demand.
//
//   test.causal     {"blocks", "heads", ...}: transformer blocks, each token sees those before it
//   test.low_rank   the same with changes of rank 2, to be bound to the weights of a test.causal
//   test.token      {"inner"}: a small MLP on the base's output; h_t alone counts
//   test.recurrent  {}: a decaying sum with a fixed state, on the base's output
//   test.window     {"first", "second"}: two causal convolutions with fixed states, on the base's output; its window is
//                   first + second - 1
//   test.window_rows {"window"}: the mean of the last rows, which it keeps one by one
//   test.faulty     {"fault": "none" | "throw" | "nan" | "shape" | "type", "after": n}: the base's output, then the
//   fault
#pragma once

#include "host/loading/native.hpp"

#include <tenon/native.hpp>
#include <tenon/nn/low_rank.hpp>
#include <tenon/nn/transformer.hpp>

#include <array>
#include <atomic>

namespace tenon::test {

class CausalExpert : public RunExpert {
 public:
  explicit CausalExpert(const Setup& setup) : CausalExpert(setup, nn::plain_linear) {}
  Tensor forward(const Input& in) override { return stack_->forward(in.h_NC, in.spans); }
  std::optional<Run> run() override { return Run{stack_->packed()}; }
  StateLayout state_layout() const override {
    StateLayout layout;
    stack_->add_state(layout);
    return layout;
  }
  void train(bool on = true) override {
    stack_->train(on);
    Expert::train(on);
  }

 protected:
  CausalExpert(const Setup& setup, const nn::MakeLinear& make)
      : RunExpert(setup),
        stack_(std::make_shared<nn::Transformer>(
            nn::TransformerOptions::from(setup.config, setup.model.at("width").integer()), make)) {
    for (const auto& child : stack_->named_children()) register_module(child.key(), child.value());
  }

 private:
  std::shared_ptr<nn::Transformer> stack_;
};

// How often test.low_rank was run by itself.
inline std::atomic<int> low_rank_calls{0};

class LowRankExpert : public CausalExpert {
 public:
  explicit LowRankExpert(const Setup& setup)
      : CausalExpert(setup, [](const std::string&, std::int64_t in, std::int64_t out) {
          return std::make_shared<nn::LowRank>(in, out, 2, 0.5);
        }) {}
  Tensor forward(const Input& in) override {
    ++low_rank_calls;
    return CausalExpert::forward(in);
  }
};

class TokenExpert : public Expert {
 public:
  explicit TokenExpert(const Setup& setup) : Expert(setup) {
    const std::int64_t width = setup.model.at("width").integer(), inner = setup.config.at("inner").integer();
    in_ = register_module("in", std::make_shared<nn::Linear>(width, inner));
    out_ = register_module("out", std::make_shared<nn::Linear>(inner, width));
  }
  Tensor forward(const Input& in) override {
    return in.base_NC + out_->forward(at::silu(in_->forward(normalize(in.h_NC))));
  }

 private:
  std::shared_ptr<nn::Linear> in_, out_;
};

// The most rows of one call with state, and how many of the next calls fail with their state already written: of
// test.recurrent.
inline std::atomic<std::int64_t> recurrent_largest_call{0};
inline std::atomic<int> recurrent_failures{0};

class RecurrentExpert : public Expert {
 public:
  explicit RecurrentExpert(const Setup& setup) : Expert(setup), width_(setup.model.at("width").integer()) {
    mix_ = register_module("mix", std::make_shared<nn::Linear>(width_, width_));
  }
  Tensor forward(const Input& in) override {
    Tensor sums_NC = at::empty_like(in.h_NC);
    if (in.spans[0].state) recurrent_largest_call = std::max(recurrent_largest_call.load(), in.h_NC.size(0));
    for (const Span& span : in.spans) {
      const State state(span.state);
      Tensor sum_C = state ? state.fixed(0) : at::zeros({width_});
      for (std::int64_t i = span.offset; i < span.offset + span.length; ++i) {
        sum_C.mul_(0.8).add_(in.h_NC[i]);
        sums_NC[i].copy_(sum_C);
      }
    }
    if (recurrent_failures > 0) {
      --recurrent_failures;
      throw std::runtime_error("failed half-way");
    }
    return in.base_NC + mix_->forward(sums_NC) * 0.1;
  }
  StateLayout state_layout() const override {
    StateLayout layout;
    layout.fixed("sum", {width_});
    return layout;
  }

 private:
  std::int64_t width_;
  std::shared_ptr<nn::Linear> mix_;
};

// Rows before a sequence, or before where its state began, count as zero.
class WindowExpert : public Expert {
 public:
  explicit WindowExpert(const Setup& setup)
      : Expert(setup),
        width_(setup.model.at("width").integer()),
        taps_{setup.config.at("first").integer(), setup.config.at("second").integer()} {}
  Tensor forward(const Input& in) override {
    Tensor y_NC = at::empty_like(in.h_NC);
    for (const Span& span : in.spans) {
      const State state(span.state);
      Tensor x_TC = in.h_NC.narrow(0, span.offset, span.length);
      for (const std::uint32_t layer : {0u, 1u}) x_TC = at::tanh(convolve(x_TC, state, layer));
      y_NC.narrow(0, span.offset, span.length).copy_(x_TC);
    }
    return in.base_NC + y_NC;
  }
  StateLayout state_layout() const override {
    StateLayout layout;
    for (const std::int64_t taps : taps_) layout.fixed("before", {taps - 1, width_});
    return layout;
  }

 private:
  Tensor convolve(const Tensor& x_TC, const State& state, std::uint32_t layer) const {
    const std::int64_t taps = taps_[layer], length = x_TC.size(0);
    const Tensor before = state ? state.fixed(layer) : at::zeros({taps - 1, width_});
    const Tensor all = at::cat({before, x_TC});
    Tensor y_TC = at::zeros_like(x_TC);
    for (std::int64_t i = 0; i < taps; ++i) y_TC += all.narrow(0, i, length) * (0.3 + 0.2 * static_cast<double>(i));
    if (state) state.fixed(layer).copy_(all.narrow(0, length, taps - 1));
    return y_TC;
  }

  std::int64_t width_;
  std::array<std::int64_t, 2> taps_;
};

class WindowRowsExpert : public Expert {
 public:
  explicit WindowRowsExpert(const Setup& setup)
      : Expert(setup), width_(setup.model.at("width").integer()), window_(setup.config.at("window").integer()) {}
  Tensor forward(const Input& in) override {
    Tensor y_NC = at::empty_like(in.h_NC);
    for (const Span& span : in.spans) {
      const State state(span.state);
      Tensor h_TC = in.h_NC.narrow(0, span.offset, span.length);
      if (state) state.append(0, h_TC), h_TC = state.rows(0);
      const std::int64_t earlier = h_TC.size(0) - span.length;
      for (std::int64_t t = 0; t < span.length; ++t) {
        const std::int64_t count = std::min(window_, earlier + t + 1);
        y_NC[span.offset + t].copy_(h_TC.narrow(0, earlier + t + 1 - count, count).mean(0));
      }
    }
    return y_NC;
  }
  StateLayout state_layout() const override {
    StateLayout layout;
    layout.per_position("h", {width_});
    return layout;
  }

 private:
  std::int64_t width_, window_;
};

class FaultyExpert : public Expert {
 public:
  explicit FaultyExpert(const Setup& setup)
      : Expert(setup), fault_(setup.config.at("fault").text()), left_(setup.config.at("after").integer()) {}
  Tensor forward(const Input& in) override {
    if (left_-- > 0 || fault_ == "none") return in.base_NC.clone();
    if (fault_ == "throw") throw std::runtime_error("lost my memory");
    if (fault_ == "shape") return in.base_NC.narrow(1, 0, 1);
    if (fault_ == "type") return in.base_NC.to(at::kDouble);
    Tensor y_NC = in.base_NC.clone();
    y_NC[y_NC.size(0) - 1][0].fill_(fault_ == "nan" ? NAN : INFINITY);
    return y_NC;
  }

 private:
  std::string fault_;
  std::int64_t left_;
};

inline const Architecture* architectures(std::size_t* count) {
  static const Architecture all[] = {
      architecture<CausalExpert>("test.causal"), architecture<LowRankExpert>("test.low_rank"),
      architecture<TokenExpert>("test.token"),   architecture<RecurrentExpert>("test.recurrent"),
      architecture<WindowExpert>("test.window"), architecture<WindowRowsExpert>("test.window_rows"),
      architecture<FaultyExpert>("test.faulty")};
  *count = std::size(all);
  return all;
}

inline const void* extension(const char* id) {
  static const tenon_expert_table table = {sizeof(tenon_expert_table),
                                           0,
                                           native::create<architectures>,
                                           native::destroy,
                                           native::parameters,
                                           native::state_layout,
                                           native::initialize,
                                           native::bind,
                                           native::prepare,
                                           native::forward,
                                           nullptr,
                                           nullptr};
  if (std::strcmp(id, "tenon.pass/1") == 0) return native::pass_table();
  if (std::strcmp(id, "tenon.run/1") == 0) return native::run_table();
  return std::strcmp(id, "tenon.native/1") == 0 ? &table : nullptr;
}

// The test program as a plugin. Initialised on first use.
inline const tenon_plugin* plugin() {
  static const tenon_plugin self = {sizeof(tenon_plugin), TENON_ABI_MAJOR, TENON_ABI_MINOR, TENON_ABI_MAJOR, 0,
                                    native::init,         extension};
  static const bool ready = self.init(host_table(), nullptr) == TENON_OK;
  return ready ? &self : nullptr;
}

} // namespace tenon::test
