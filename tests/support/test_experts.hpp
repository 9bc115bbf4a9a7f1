// Experts that live in the test program itself, behind the same C table as a stranger's: one of every context, and one
// that misbehaves on demand.
//
//   test.causal     {"blocks", "heads", ...}: transformer blocks, each token sees those before it
//   test.token      {"inner"}: a small MLP on the base's output; h_t alone counts
//   test.recurrent  {}: a decaying sum with a fixed state, on the base's output
//   test.faulty     {"fault": "none" | "throw" | "nan" | "shape" | "type", "after": n}: the base's output, then the
//   fault
#pragma once

#include "host/loading/native.hpp"

#include <tenon/native.hpp>
#include <tenon/nn/transformer.hpp>

#include <atomic>

namespace tenon::test {

class CausalExpert : public Expert {
 public:
  explicit CausalExpert(const Setup& setup)
      : Expert(setup),
        stack_(std::make_shared<nn::Transformer>(
            nn::TransformerOptions::from(setup.config, setup.model.at("width").integer()))) {
    for (const auto& child : stack_->named_children()) register_module(child.key(), child.value());
  }
  Tensor forward(const Input& in) override { return stack_->forward(in.h_NC, in.spans); }
  StateLayout state_layout() const override {
    StateLayout layout;
    stack_->add_state(layout);
    return layout;
  }
  void train(bool on = true) override {
    stack_->train(on);
    Expert::train(on);
  }

 private:
  std::shared_ptr<nn::Transformer> stack_;
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

class RecurrentExpert : public Expert {
 public:
  explicit RecurrentExpert(const Setup& setup) : Expert(setup), width_(setup.model.at("width").integer()) {
    mix_ = register_module("mix", std::make_shared<nn::Linear>(width_, width_));
  }
  Tensor forward(const Input& in) override {
    Tensor sums_NC = at::empty_like(in.h_NC);
    for (const Span& span : in.spans) {
      const State state(span.state);
      Tensor sum_C = state ? state.fixed(0) : at::zeros({width_});
      for (std::int64_t i = span.offset; i < span.offset + span.length; ++i) {
        sum_C.mul_(0.8).add_(in.h_NC[i]);
        sums_NC[i].copy_(sum_C);
      }
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
  static const Architecture all[] = {architecture<CausalExpert>("test.causal"), architecture<TokenExpert>("test.token"),
                                     architecture<RecurrentExpert>("test.recurrent"),
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
