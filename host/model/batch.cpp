#include "host/model/batch.hpp"

#include <ATen/ATen.h>

namespace tenon {

Batch Batch::whole(const at::Tensor& tokens_BT) {
  Batch batch{tokens_BT.reshape({-1}).to(at::kLong), {}};
  const std::int64_t length = tokens_BT.size(1);
  for (std::int64_t i = 0; i < tokens_BT.size(0); ++i) batch.rows.push_back({i * length, length, 0, nullptr});
  return batch;
}

Batch Batch::next(Sequence& sequence, std::span<const std::int32_t> tokens) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  Batch batch{at::empty({count}, at::kLong), {{0, count, sequence.length(), &sequence}}};
  std::copy(tokens.begin(), tokens.end(), batch.tokens_N.data_ptr<std::int64_t>());
  return batch;
}

} // namespace tenon
