// Where an imported expert's blocks come from: layers of a packaged model, the expert's own or another. Trunk, base and
// head hold all of a model's layers together.
//
//   id                refuses                                                                          exit
//   TN-S1 source      an architecture cut from a model without a source, or a source for any other       2
//   TN-S2 tokenizer   a source that reads other tokens than the expert's model                           4
//   TN-S3 layers      layers the source does not have                                                    2
//   TN-S4 config      a configuration that says something else than the source's layers                  2
//   TN-S5 family      a source whose middle is none of Llama's blocks                                    4
//
// Thread: immutable; any.
#pragma once

#include "host/composition/loader.hpp"
#include "host/training/plan.hpp"

#include <memory>
#include <optional>
#include <string>

namespace tenon {

struct Source {
  Entry entry;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Weights> middle; // the base's
  Cut layers;

  // The expert's configuration: asked, with what the layers' shape says. Errors: usage (TN-S4).
  json::object config(const json::object& asked) const;
  // Gives blocks.<i> the values of layer layers.first + i. Errors: plugin (a parameter the layers do not have).
  void copy_into(const LoadedExpert& expert) const;
  // Computes the source's residual stream at the entrance of its layers.
  Trunk entrance() const;
  std::string title() const; // "other 1.0.0, layers 4:8"
  std::string digest() const;

 private:
  WeightSource weights() const;
};

// What the plan names; nothing where it names none and none is needed. model, base: what the expert is trained for.
// Errors: of loading, and the rules above.
std::optional<Source> open_source(const Loader& loader, const TrainingPlan& plan, const ArchitectureFacts& facts,
                                  const std::shared_ptr<const Model>& model, const Entry& model_entry,
                                  const ExpertPackage& base);

} // namespace tenon
