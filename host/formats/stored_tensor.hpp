// A weight as a file stores it: what it means (type and logical shape) and its bytes, never converted.
//
// In safetensors a quantised weight is a U8 tensor (rows, bytes of a row) of the raw blocks, and the file's metadata
// say what it means: "tenon.blocks.<name>" = {"type":"Q4_1","shape":[576,576]}. The functions here are the only ones
// that know this. Thread: values; any thread.
#pragma once

#include "host/formats/safetensors.hpp"
#include "kernels/blocks.hpp"

#include <map>
#include <span>
#include <string>
#include <vector>

namespace tenon {

struct StoredTensor {
  std::string name;
  nn::BlockType type;
  std::vector<std::size_t> shape;   // logical, row-major; blocks run along the last dimension
  std::span<const std::byte> bytes; // borrowed, any alignment

  std::size_t elements() const; // the product of the shape, which bytes has been checked against
};

// The tensor of that name with its logical type and shape. Errors: integrity when it is missing or the metadata do not
// agree with the bytes; incompatible when its dtype is no weight format.
StoredTensor stored_tensor(const SafetensorsFile& file, std::string_view name);
// All of them, in the file's order; metadata that describe no tensor are an error too.
std::vector<StoredTensor> stored_tensors(const SafetensorsFile& file);

// The tensor as safetensors stores it; for a quantised one, adds to metadata what stored_tensor will need.
TensorView safetensors_view(const StoredTensor& tensor, std::map<std::string, std::string>& metadata);

// Its numbers as float32, row-major. out must have elements() numbers. Throws Error{bug} otherwise.
void dequantise(const StoredTensor& tensor, std::span<float> out);

} // namespace tenon
