// A composition: a model, an ordered set of experts, and a router, joined as a lock says.
//
// The forward path is one function and reads like the paper. Thread: one forward call at a time.
#pragma once

#include "host/composition/loader.hpp"
#include "host/execution/experts.hpp"

#include <functional>
#include <memory>

namespace tenon {

class Composition {
 public:
  struct Options {
    bool strict = false;   // a faulty expert ends the call instead of being masked
    Experts::Say say = {}; // where the one line about a masked expert goes
  };
  // Errors: of loading; whatever does not fit is refused with its rule.
  Composition(const Loader& loader, const Lock& lock, Options options);
  // Parts already loaded: slot 0 is the base.
  Composition(std::shared_ptr<const Model> model, std::vector<ExpertPackage> experts, Routing routing, double prior,
              Options options);

  // Logits (N,V) of every row.
  at::Tensor forward(const Batch& batch);
  // As forward up to the merge: m (N,C) at the upper cut. given: strengths (N,E) instead of the router's.
  at::Tensor middle(const Batch& batch, const at::Tensor* given = nullptr);

  Sequence new_sequence() const;
  // The strengths (N,E) of the last call, as asked for (a masked expert's share not yet moved).
  const at::Tensor& last_strengths() const { return last_strengths_; }

  const Model& model() const { return *model_; }
  const Router& router() const { return *router_; }
  Experts& experts() { return experts_; }
  const std::vector<ExpertPackage>& packages() const { return packages_; }
  const Lock& lock() const { return lock_; }

 private:
  Lock lock_;
  std::shared_ptr<const Model> model_;
  std::vector<ExpertPackage> packages_;
  std::unique_ptr<Router> router_;
  Experts experts_;
  at::Tensor last_strengths_;
};

} // namespace tenon
