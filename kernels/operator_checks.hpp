// What operators are given, checked before a kernel trusts it: each refusal names the operator, what it found and what
// it needs. Errors (all): c10::Error. Thread: any.
#pragma once

#include "kernels/packed.hpp"
#include "kernels/transformer.hpp"

namespace tenon {

// weight (F,C), bias (F), a (R,C) and b (F,R), both or neither.
void check_linear(const PackedLinear& linear);
// Sizes of all products and norms, by q's inputs, the shape of heads and up's outputs.
void check_block(const PackedBlock& block);
// Blocks that one run may have: of one width, shape of heads and kind of positions.
void check_run(const std::vector<PackedBlock>& blocks);
// Every span's rows are among these.
void check_spans(const char* name, Spans spans, std::int64_t rows);
// x (N,width).
void check_rows(const char* name, const at::Tensor& x, std::int64_t width);

void check_layer_norm(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C);
void check_rope(const at::Tensor& x_NHD, Spans spans);
void check_attention(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD, Spans spans);

} // namespace tenon
