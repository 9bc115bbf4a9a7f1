// Packed forms of weights: which bytes stand for a float32 tensor in a product.
//
// Weights are bound to modules, ours and strangers', as float32 tensors over a mapped file. Whoever loads them may say
// that a tensor's products are to be computed from packed bytes instead; a packed handle looks that up by the tensor's
// address, so no module and no plugin knows of it, and float32 pages that nobody reads cost nothing.
// Thread: any.
#pragma once

#include "kernels/cpu/packed_matrix.hpp"

#include <memory>
#include <optional>
#include <string>

namespace tenon {

struct PackedForm {
  cpu::PackedMatrix matrix;
  std::shared_ptr<const void> owner; // of its bytes
  bool lossless = false;             // holds the very numbers of the float32 tensor
};

// A tensor's form, or why it cannot have the one that was asked for. weights: its first number.
// Requires: the float32 tensor outlives its entry.
void add_packed_form(const float* weights, PackedForm form);
void add_packed_refusal(const float* weights, std::int64_t outputs, std::int64_t inputs, std::string reason);
// A tensor that keeps to float32, whose products are LibTorch's; and whether one was made of it.
void add_unpacked(const float* weights, std::int64_t outputs, std::int64_t inputs);
bool multiplied_unpacked(const float* weights);
void remove_packed_form(const float* weights);

// The form of W (outputs, inputs) at this address, contiguous: all rows of a tensor with a form, or its first ones.
// multiplied: products are made of it from here on. nullopt: none was asked for. Throws std::runtime_error with the
// reason where it cannot be had.
std::optional<PackedForm> packed_form(const float* weights, std::int64_t outputs, std::int64_t inputs,
                                      bool multiplied = false);

} // namespace tenon
