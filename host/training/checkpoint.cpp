#include "host/training/checkpoint.hpp"

#include "host/model/weights.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <charconv>

namespace tenon {
namespace {

constexpr const char* kStep = "tenon.step";
constexpr const char* kIdentity = "tenon.identity.";

std::int64_t step_of(const std::string& text, const std::filesystem::path& path) {
  std::int64_t step = -1;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (problem != std::errc() || end != text.data() + text.size() || step < 0)
    throw Error(Code::integrity, path.string(), "found step \"" + text + "\", need a number",
                "remove the folder and train again");
  return step;
}

SafetensorsFile opened(const std::filesystem::path& path) {
  try {
    return SafetensorsFile(path);
  } catch (const Error& error) {
    if (error.code != Code::integrity) throw;
    throw Error(Code::integrity, path.string(), error.message, "remove the folder and train again");
  }
}

} // namespace

void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  std::map<std::string, std::string> metadata = {{kStep, std::to_string(checkpoint.step)}};
  for (const auto& [what, digest] : checkpoint.identity) metadata[kIdentity + what] = digest;
  write_weights(path, checkpoint.tensors, metadata);
}

std::optional<Checkpoint> peek_checkpoint(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  const SafetensorsFile file = opened(path);
  Checkpoint checkpoint;
  const auto step = file.metadata().find(kStep);
  if (step == file.metadata().end())
    throw Error(Code::integrity, path.string(), "is no checkpoint of a training", "remove the folder and train again");
  checkpoint.step = step_of(step->second, path);
  for (const auto& [key, value] : file.metadata())
    if (key.rfind(kIdentity, 0) == 0) checkpoint.identity[key.substr(std::string(kIdentity).size())] = value;
  return checkpoint;
}

void read_checkpoint(const std::filesystem::path& path, const NamedTensors& into) {
  at::NoGradGuard no_grad;
  const Weights file = Weights::open(path, "", {});
  for (const auto& [name, tensor] : into) {
    const at::Tensor saved = file.at(name);
    if (saved.sizes() != tensor.sizes())
      throw Error(Code::integrity, path.string(), "tensor " + name + " has another shape than the expert",
                  "remove the folder and train again");
    tensor.detach().copy_(saved);
  }
}

} // namespace tenon
