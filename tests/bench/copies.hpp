// Experts like the base, each with weights of its own that lie as any package's do: in a file, mapped. Their float32
// forms are never touched; the files are gone once they are mapped.
#pragma once

#include "host/composition/loader.hpp"
#include "host/formats/packed_file.hpp"
#include "kernels/packed_forms.hpp"
#include "registry/base/files.hpp"

#include <fmt/format.h>

#include <ATen/ATen.h>
#include <map>

namespace tenon::bench {

class Copies {
 public:
  // folder: on the disk that the packages' packed weights lie on. Requires: loader and model outlive the copies.
  Copies(const Loader& loader, const Model& model, std::filesystem::path folder)
      : loader_(loader), model_(model), folder_(std::move(folder)) {}
  ~Copies() {
    for (const at::Tensor& weight : packed_) remove_packed_form(weight.data_ptr<float>());
  }
  Copies(const Copies&) = delete;

  ExpertPackage make(const ExpertPackage& base, std::int64_t number, Row row) {
    ExpertPackage copy = base;
    copy.entry.name = fmt::format("copy{}", number);
    copy.expert = loader_.create(loader_.plugin(base.manifest.plugin), base.manifest.architecture, base.manifest.config,
                                 model_, nullptr, copy.entry.title());
    std::map<std::string, at::Tensor> weights;
    for (const ExpertParameter& parameter : base.expert->parameters())
      weights.emplace(parameter.name, form_of(parameter.tensor) ? at::empty(parameter.tensor.sizes())
                                                                : parameter.tensor.detach().clone());
    const auto file = mapped_again(*base.expert);
    for (const PackedEntry& entry : packed_entries(*file)) {
      packed_.push_back(weights.at(entry.name));
      add_packed_form(packed_.back().data_ptr<float>(), {entry.matrix, file});
    }
    for (const auto& [name, tensor] : weights) copy.expert->bind(name, tensor);
    copy.expert->prepare(TENON_INFERENCE);
    copy.row = std::move(row);
    return copy;
  }

 private:
  static std::optional<PackedForm> form_of(const at::Tensor& weights) {
    if (weights.dim() != 2) return std::nullopt;
    return packed_form(weights.data_ptr<float>(), weights.size(0), weights.size(1));
  }

  std::shared_ptr<const SafetensorsFile> mapped_again(const LoadedExpert& expert) const {
    std::vector<PackedEntry> entries;
    std::vector<std::span<const std::byte>> bytes;
    for (const ExpertParameter& parameter : expert.parameters()) {
      const auto form = form_of(parameter.tensor);
      if (!form) continue;
      const auto& [format, outputs, inputs, from] = form->matrix;
      bytes.emplace_back(from, cpu::packed_bytes(format, outputs, inputs).value());
      entries.push_back({parameter.name, {format, outputs, inputs, nullptr}, ""});
    }
    const std::filesystem::path path = folder_ / "a-copy-of-the-base.safetensors";
    PackedFileWriter writer(path, entries);
    for (std::size_t i = 0; i < entries.size(); ++i) writer.write(entries[i].name, bytes[i]);
    writer.commit();
    drop_cached(path);
    auto file = std::make_shared<const SafetensorsFile>(path);
    std::filesystem::remove(path);
    return file;
  }

  const Loader& loader_;
  const Model& model_;
  std::filesystem::path folder_;
  std::vector<at::Tensor> packed_;
};

} // namespace tenon::bench
