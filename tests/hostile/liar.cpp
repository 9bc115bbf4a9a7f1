// Experts that load well and then fail: the host must name them and go on.
#include <tenon/native.hpp>

#include <limits>

namespace {

struct ThrowsInCreate : tenon::Expert {
  explicit ThrowsInCreate(const tenon::Setup& setup) : Expert(setup) { throw std::runtime_error("no such luck"); }
  tenon::Tensor forward(const tenon::Input& in) override { return in.h_NC; }
};

// One weight, so that each of them can be trained and bound.
struct Liar : tenon::Expert {
  explicit Liar(const tenon::Setup& setup) : Expert(setup) { weight = register_parameter("weight", at::empty({1})); }
  tenon::Tensor weight;
};

struct ThrowsInForward : Liar {
  using Liar::Liar;
  tenon::Tensor forward(const tenon::Input&) override { throw 42; }
};

struct NotFinite : Liar {
  using Liar::Liar;
  tenon::Tensor forward(const tenon::Input& in) override {
    return in.h_NC * weight * std::numeric_limits<float>::quiet_NaN();
  }
};

struct WrongShape : Liar {
  using Liar::Liar;
  tenon::Tensor forward(const tenon::Input& in) override { return in.h_NC.t(); }
};

struct WrongType : Liar {
  using Liar::Liar;
  tenon::Tensor forward(const tenon::Input& in) override { return in.h_NC.to(at::kDouble); }
};

struct NoTensor : Liar {
  using Liar::Liar;
  tenon::Tensor forward(const tenon::Input&) override { return {}; }
};

} // namespace

TENON_PLUGIN(tenon::architecture<ThrowsInCreate>("hostile.throws_in_create"),
             tenon::architecture<ThrowsInForward>("hostile.throws_in_forward"),
             tenon::architecture<NotFinite>("hostile.not_finite"),
             tenon::architecture<WrongShape>("hostile.wrong_shape"),
             tenon::architecture<WrongType>("hostile.wrong_type"), tenon::architecture<NoTensor>("hostile.no_tensor"));
