// From a PEFT LoRA adapter to a tenon.low_rank expert: a package as training leaves it, without a step of training.
//
// The adapter's numbers become the expert's as they are. What it changes outside the middle cannot go with it, and is
// refused by name, or dropped and listed. The row, which lets a router choose the expert, is fitted to text of the
// adapter's domain, as training does; without text there is none. Thread: one.
#pragma once

#include "host/composition/loader.hpp"
#include "host/formats/peft.hpp"
#include "host/training/hooks.hpp"
#include "host/training/plan.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace tenon {

struct AdapterJob {
  std::string name;                       // of the expert
  std::filesystem::path adapter;          // the folder PEFT saved
  TrainingPlan plan;                      // model, data, row; its text is optional, its config is the adapter's
  std::filesystem::path folder;           // where the package goes: not there yet, or empty
  bool middle_only = false;               // drop what lies outside the middle
  std::vector<std::filesystem::path> dev; // as given to the loader
};

struct AdapterImport {
  std::filesystem::path folder;
  std::string base_model;               // as the adapter names it
  std::vector<std::string> products;    // of the middle, as tenon.low_rank names them: "blocks.0.q"
  std::vector<std::string> dropped;     // modules of the adapter
  std::optional<json::object> evidence; // with text
};

// What of an adapter goes into the middle of a model of this cut and depth.
struct AdapterPlacement {
  struct Product {
    const PeftProduct* source;
    std::string target, parameter; // "blocks.0.q", "blocks.0.attention.q"
  };
  std::vector<Product> products;
  std::vector<std::string> dropped;
};
// Errors: incompatible, listing the modules that the model does not have or that lie outside the middle.
AdapterPlacement place_adapter(const PeftAdapter& adapter, const Cut& cut, std::int64_t layers, bool middle_only);
// The configuration of tenon.low_rank that computes it.
json::object low_rank_config(const AdapterPlacement& placement, std::int64_t blocks);

// Errors: usage (the folder holds something), of reading, incompatible (as above; shapes, both sides named), integrity
// (a value is not finite), of fitting. Nothing is left in the folder after any of them.
AdapterImport import_adapter(const Loader& loader, const AdapterJob& job, const TrainingHooks& hooks);

} // namespace tenon
