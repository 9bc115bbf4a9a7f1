// Where a training can go on: parameters, optimiser state, row and step, in one file that is replaced whole.
// Random streams are counter-based, so the step says where each of them stands. Thread: one.
#pragma once

#include "host/training/optimizer.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace tenon {

// What must be the same for a checkpoint to be gone on with: "plan", "data", ... each with its digest.
using TrainingIdentity = std::map<std::string, std::string>;

struct Checkpoint {
  std::int64_t step = 0; // steps done
  TrainingIdentity identity;
  NamedTensors tensors;
};

// Errors: environment (the old file stays), numeric (a tensor is not finite; the old file stays).
void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);
// Step and identity alone; nothing where there is no file. Errors: integrity.
std::optional<Checkpoint> peek_checkpoint(const std::filesystem::path& path);
// Copies what the file holds into tensors of the same names. Errors: integrity (missing, misshapen).
void read_checkpoint(const std::filesystem::path& path, const NamedTensors& into);

} // namespace tenon
