// Stitch: y = W x + bias between residual streams of unequal widths, or of two models.
// Stitches: the pair around blocks that run on a stream of their own, y = up(blocks(down(n(h)))).
//
// An expert that registers the pair under the name "stitch" has it initialised by the host, by ridge regression on
// cached activations: down towards the stream its blocks were cut from, where they were cut from a model; up towards
// the base's output, where the expert does not use it. For the second the host sets `up` to rows of the identity and
// reads the blocks' output, so such an expert returns what `up` returns and nothing else.
// Sources: Bansal et al. 2021, Revisiting model stitching (arXiv 2106.07682); Pan et al. 2023, Stitchable neural
// networks (arXiv 2302.06586), for the initialisation by least squares.
#pragma once

#include <tenon/nn/linear.hpp>

namespace tenon::nn {

class Stitch : public Linear {
 public:
  Stitch(std::int64_t in, std::int64_t out) : Linear(in, out, /*with_bias=*/true) {}

  // x (N,in) -> (N,out) in x's own type: a residual stream keeps its precision, whatever products compute in.
  Tensor forward(const Tensor& x) override { return Linear::forward(x).to(x.scalar_type()); }
};

class Stitches : public torch::nn::Module {
 public:
  // Between a model's stream of `width` and one of `inner` channels.
  Stitches(std::int64_t width, std::int64_t inner) {
    down = register_module("down", std::make_shared<Stitch>(width, inner));
    up = register_module("up", std::make_shared<Stitch>(inner, width));
  }

  std::shared_ptr<Stitch> down, up;
};

} // namespace tenon::nn
