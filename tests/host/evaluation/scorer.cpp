#include "host/evaluation/scorer.hpp"

#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

// Three sequences of 24, 5 and 11 tokens.
Batch uneven() {
  Batch batch;
  std::vector<at::Tensor> ids;
  std::int64_t offset = 0;
  for (const std::int64_t length : {24, 5, 11}) {
    ids.push_back(tensor_of(tokens("s" + std::to_string(length), static_cast<std::size_t>(length))));
    batch.rows.push_back({offset, length, 0, nullptr});
    offset += length;
  }
  batch.tokens_N = at::cat(ids);
  return batch;
}

// -log p of every prediction from `first` on, sequence by sequence, from the head's own logits.
at::Tensor by_head(const Head& head, const at::Tensor& m_NC, const Batch& batch,
                   const std::vector<std::int64_t>& first) {
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const BatchRows& rows = batch.rows[i];
    const at::Tensor ids = batch.tokens_N.narrow(0, rows.offset, rows.length);
    const at::Tensor logits = head.forward(m_NC.narrow(0, rows.offset, rows.length), Batch::whole(ids.unsqueeze(0)));
    const at::Tensor nll = -logits.to(at::kDouble)
                                .log_softmax(1)
                                .narrow(0, 0, rows.length - 1)
                                .gather(1, ids.narrow(0, 1, rows.length - 1).unsqueeze(1));
    parts.push_back(nll.squeeze(1).narrow(0, first[i], rows.length - 1 - first[i]));
  }
  return at::cat(parts);
}

TEST_CASE("losses are those of the head, for sequences of any length and from any position on") {
  const Tiny tiny;
  const Batch batch = uneven();
  const at::Tensor m_NC = tiny.model->trunk().forward(batch), other_NC = m_NC * 1.1;
  for (const std::vector<std::int64_t>& first : {std::vector<std::int64_t>{0, 0, 0}, {20, 3, 0}}) {
    const std::vector<at::Tensor> scores = Scorer(tiny.model->head(), batch, first)({m_NC, other_NC});
    CHECK(largest_difference(scores[0], by_head(tiny.model->head(), m_NC, batch, first)) < 1e-5);
    CHECK(largest_difference(scores[1], by_head(tiny.model->head(), other_NC, batch, first)) < 1e-5);
  }
}

TEST_CASE("a sequence that several mixes share goes through the head once") {
  const Tiny tiny;
  const Batch batch = uneven();
  const at::Tensor m_NC = tiny.model->trunk().forward(batch);
  at::Tensor changed_NC = m_NC.clone();
  changed_NC.narrow(0, 24, 5).mul_(2); // the second sequence
  const Scorer scorer(tiny.model->head(), batch);
  const std::vector<at::Tensor> scores = scorer({m_NC, m_NC.clone(), changed_NC});
  CHECK(scorer.passes() == 4);
  CHECK(scores[0].equal(scores[1]));
  CHECK(scores[0].narrow(0, 0, 23).equal(scores[2].narrow(0, 0, 23)));
  CHECK_FALSE(scores[0].narrow(0, 23, 4).equal(scores[2].narrow(0, 23, 4)));
}

} // namespace
} // namespace tenon::test
