#include "host/evaluation/scorer.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

constexpr std::int64_t kHeadRows = 1024; // through the head's layers at once
constexpr std::int64_t kLogitRows = 128; // of logits at once: 25 MB of them for SmolLM2

// In place: the logits are not needed afterwards.
at::Tensor nll_of(at::Tensor logits_nV, const at::Tensor& targets_n) {
  const at::Tensor hit_n = logits_nV.gather(1, targets_n.unsqueeze(1)).squeeze(1).to(at::kDouble);
  const at::Tensor largest_n1 = logits_nV.amax(1, true);
  const at::Tensor sum_n = logits_nV.sub_(largest_n1).exp_().sum(1, false, at::kDouble);
  return sum_n.log() + largest_n1.squeeze(1).to(at::kDouble) - hit_n;
}

} // namespace

// One sequence as at least one mix has it.
struct Scorer::Job {
  std::size_t sequence;
  at::Tensor m_TC;
  std::vector<std::size_t> mixes;
};

Scorer::Scorer(const Head& head, Batch batch, std::vector<std::int64_t> first)
    : head_(head), batch_(std::move(batch)), first_(std::move(first)), offset_{0} {
  for (std::size_t i = 0; i < batch_.rows.size(); ++i) offset_.push_back(offset_.back() + predictions(i));
}

Scorer::Scorer(const Head& head, Batch batch) : Scorer(head, batch, std::vector<std::int64_t>(batch.rows.size(), 0)) {}

std::vector<Scorer::Job> Scorer::jobs(const std::vector<at::Tensor>& mixes_NC) const {
  std::vector<Job> out;
  for (std::size_t sequence = 0; sequence < batch_.rows.size(); ++sequence) {
    const BatchRows& rows = batch_.rows[sequence];
    const std::size_t begin = out.size();
    for (std::size_t mix = 0; mix < mixes_NC.size(); ++mix) {
      const at::Tensor m_TC = mixes_NC[mix].narrow(0, rows.offset, rows.length);
      std::size_t same = begin;
      while (same < out.size() && !out[same].m_TC.equal(m_TC)) ++same;
      if (same == out.size()) out.push_back({sequence, m_TC, {}});
      out[same].mixes.push_back(mix);
    }
  }
  return out;
}

// The losses of these jobs' predictions, one after another.
at::Tensor Scorer::score(const std::vector<const Job*>& some) const {
  Batch batch;
  std::vector<at::Tensor> parts, predicting, targets;
  std::int64_t offset = 0;
  for (const Job* job : some) {
    const BatchRows& rows = batch_.rows[job->sequence];
    const std::int64_t first = first_[job->sequence], count = predictions(job->sequence);
    parts.push_back(job->m_TC);
    predicting.push_back(at::arange(offset + first, offset + first + count));
    targets.push_back(batch_.tokens_N.narrow(0, rows.offset + first + 1, count));
    batch.rows.push_back({offset, rows.length, 0, nullptr});
    offset += rows.length;
  }
  const at::Tensor features_PC = head_.features(at::cat(parts), batch).index_select(0, at::cat(predicting));
  const at::Tensor targets_P = at::cat(targets);
  at::Tensor nll_P = at::empty({targets_P.size(0)}, at::kDouble);
  for (std::int64_t first = 0; first < targets_P.size(0); first += kLogitRows) {
    const std::int64_t rows = std::min(kLogitRows, targets_P.size(0) - first);
    nll_P.narrow(0, first, rows)
        .copy_(nll_of(head_.logits(features_PC.narrow(0, first, rows)), targets_P.narrow(0, first, rows)));
  }
  return nll_P;
}

std::vector<at::Tensor> Scorer::operator()(const std::vector<at::Tensor>& mixes_NC) const {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> out;
  for (std::size_t mix = 0; mix < mixes_NC.size(); ++mix) out.push_back(at::empty({offset_.back()}, at::kDouble));
  const std::vector<Job> all = jobs(mixes_NC);
  for (std::size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    std::vector<const Job*> some;
    for (std::int64_t rows = 0; end < all.size() && (rows == 0 || rows + all[end].m_TC.size(0) <= kHeadRows); ++end) {
      rows += all[end].m_TC.size(0);
      some.push_back(&all[end]);
    }
    const at::Tensor nll_P = score(some);
    std::int64_t at = 0;
    for (const Job* job : some) {
      const std::int64_t count = predictions(job->sequence);
      for (const std::size_t mix : job->mixes)
        out[mix].narrow(0, offset_[job->sequence], count).copy_(nll_P.narrow(0, at, count));
      at += count;
    }
    passes_ += static_cast<std::int64_t>(some.size());
  }
  return out;
}

at::Tensor next_token_nll(const Head& head, const at::Tensor& m_NC, const Batch& batch) {
  return Scorer(head, batch)({m_NC})[0].view({static_cast<std::int64_t>(batch.rows.size()), -1});
}

} // namespace tenon
