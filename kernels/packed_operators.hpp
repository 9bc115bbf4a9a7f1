// linear and run_blocks of kernels/transformer.hpp, by our own kernels on packed weights.
// Thread: any; a sequence's state is used by one call at a time.
#pragma once

#include "kernels/transformer.hpp"

namespace tenon {

// Requires: packed.form.
at::Tensor packed_linear(const at::Tensor& x_NC, const PackedLinear& packed);

// What the kernels read of these blocks, which must outlive it; empty unless every weight has a packed form.
std::vector<cpu::Block> packed_kernels(const std::vector<PackedBlock>& blocks);
at::Tensor packed_run(const at::Tensor& x_NC, const PackedHandle& run, Spans spans, std::int64_t slot);

} // namespace tenon
