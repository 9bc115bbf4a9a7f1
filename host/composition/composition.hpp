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

  // The two halves of middle. read: trunk and router; h (N,C), kept in the rows' sequences; last_strengths() go with
  // it. merged: m of rows that were read, now or earlier, in any company.
  at::Tensor read(const Batch& batch, const at::Tensor* given = nullptr);
  at::Tensor merged(const at::Tensor& h_NC, const at::Tensor& w_NE, const Batch& batch);

  Sequence new_sequence() const;
  // Where the sequences' memory comes from.
  const std::shared_ptr<BlockPool>& pool() const { return pool_; }
  // The strengths (N,E) of the last call, as asked for (a masked expert's share not yet moved).
  const at::Tensor& last_strengths() const { return last_strengths_; }

  const Model& model() const { return *model_; }
  const Router& router() const { return *router_; }
  Experts& experts() { return experts_; }
  const std::vector<ExpertPackage>& packages() const { return packages_; }
  const Lock& lock() const { return lock_; } // empty where there is none: parts already loaded
  // The form in which its sequences keep keys and values: "float32", "bf16" or "int8".
  const char* key_format() const;
  // Of everything that what a sequence remembers depends on: model, experts, plugins, routing, format of products.
  std::string state_digest() const;
  // The part of that which people name: {"model", "experts": [titles], "routing", "compute", "keys"}.
  json::object state_facts() const;

 private:
  Lock lock_;
  std::shared_ptr<const Model> model_;
  std::vector<ExpertPackage> packages_;
  std::unique_ptr<Router> router_;
  Experts experts_;
  at::Tensor last_strengths_;
  std::shared_ptr<BlockPool> pool_ = BlockPool::make();
};

} // namespace tenon
