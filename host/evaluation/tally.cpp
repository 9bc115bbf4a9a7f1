#include "host/evaluation/tally.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

std::vector<double> row_of(const at::Tensor& values_T) {
  const at::Tensor whole = values_T.to(at::kDouble).contiguous();
  return {whole.data_ptr<double>(), whole.data_ptr<double>() + whole.numel()};
}

std::vector<std::string> pieces_of(const Tokenizer& tokenizer, const at::Tensor& tokens_T) {
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> out;
  for (std::int64_t t = 0; t < tokens_T.size(0); ++t)
    out.push_back(decoder.push(static_cast<std::int32_t>(tokens_T[t].item<std::int64_t>())));
  out.back() += decoder.flush();
  return out;
}

// Row i of the batch, token by token.
Passage passage_of(const Batch& batch, std::size_t i, const at::Tensor& w_NE, const at::Tensor& nll_base_BT,
                   const at::Tensor& nll_composed_BT, const Tokenizer& tokenizer) {
  const BatchRows& rows = batch.rows[i];
  const auto row = static_cast<std::int64_t>(i);
  Passage out;
  out.pieces = pieces_of(tokenizer, batch.tokens_N.narrow(0, rows.offset, rows.length));
  for (std::int64_t t = 0; t + 1 < rows.length; ++t) {
    const at::Tensor w_E = w_NE[rows.offset + t].contiguous();
    out.strengths.emplace_back(w_E.data_ptr<float>(), w_E.data_ptr<float>() + w_E.numel());
  }
  out.nll_base = row_of(nll_base_BT[row]);
  out.nll_composed = row_of(nll_composed_BT[row]);
  return out;
}

std::vector<std::string> names_of(const std::vector<Arm>& arms) {
  std::vector<std::string> out;
  for (const Arm& arm : arms) out.push_back(arm.name);
  return out;
}

std::size_t index_of(const std::vector<std::string>& names, const std::string& name) {
  return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

} // namespace

Estimate paired_estimate(std::span<const double> a, std::span<const double> b) {
  std::vector<double> difference(a.size());
  std::transform(a.begin(), a.end(), b.begin(), difference.begin(), std::minus<>());
  return estimate(difference);
}

Tally::Tally(std::vector<std::string> experts, std::vector<std::size_t> shown)
    : experts_(std::move(experts)),
      shown_(std::move(shown)),
      strength_(experts_.size(), 0.0),
      strongest_(experts_.size(), 0) {}

std::vector<std::size_t> Tally::singles(const std::vector<std::string>& arms) const {
  std::vector<std::size_t> out = {index_of(arms, "base")};
  for (std::size_t slot = 1; slot < experts_.size(); ++slot) out.push_back(index_of(arms, "alone:" + experts_[slot]));
  return out;
}

void Tally::add(const Batch& batch, std::span<const std::size_t> blocks, const Counted& counted,
                const std::vector<Arm>& arms, const std::vector<at::Tensor>& nll_BT, const Tokenizer& tokenizer) {
  const std::vector<std::string> names = names_of(arms);
  for (std::size_t i = 0; i < arms.size(); ++i) add_blocks(names[i], nll_BT[i], counted);
  if (experts_.size() > 1) {
    at::Tensor best_BT = nll_BT[0];
    for (const std::size_t single : singles(names)) best_BT = at::minimum(best_BT, nll_BT[single]);
    add_blocks("oracle:token", best_BT, counted);
  }
  const std::size_t base = index_of(names, "base"), composed = index_of(names, "composed");
  const at::Tensor w_NE = arms[composed].strengths_NE[0];
  add_loads(w_NE, batch, counted);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (std::find(shown_.begin(), shown_.end(), blocks[i]) == shown_.end()) continue;
    passages_.push_back(passage_of(batch, i, w_NE, nll_BT[base], nll_BT[composed], tokenizer));
    passages_.back().block = static_cast<std::int64_t>(blocks[i]);
  }
}

void Tally::add_blocks(const std::string& arm, const at::Tensor& nll_BT, const Counted& counted) {
  auto found = std::find_if(arms_.begin(), arms_.end(), [&](const ArmScore& score) { return score.arm == arm; });
  if (found == arms_.end()) found = arms_.insert(arms_.end(), ArmScore{arm, {}, {}, {}});
  const std::vector<double> means = row_of((nll_BT * counted.next_BT).sum(1) / counted.next_BT.sum(1));
  found->block_nll.insert(found->block_nll.end(), means.begin(), means.end());
}

void Tally::add_loads(const at::Tensor& w_NE, const Batch& batch, const Counted& counted) {
  tokens_ += static_cast<std::int64_t>(counted.next_BT.sum().item<double>());
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    const at::Tensor w_TE = w_NE.narrow(0, batch.rows[i].offset + 1, counted.text[i] - 1);
    const at::Tensor sums_E = w_TE.sum(0, false, at::kDouble), best_T = w_TE.argmax(1);
    for (std::size_t slot = 0; slot < experts_.size(); ++slot) {
      strength_[slot] += sums_E[static_cast<std::int64_t>(slot)].item<double>();
      strongest_[slot] += best_T.eq(static_cast<std::int64_t>(slot)).sum().item<std::int64_t>();
    }
    positions_ += counted.text[i] - 1;
  }
}

void Tally::add_oracles(CorpusScore& score) const {
  if (experts_.size() < 2) return;
  std::vector<std::string> names;
  for (const ArmScore& arm : score.arms) names.push_back(arm.arm);
  std::size_t best = index_of(names, "base");
  for (const std::size_t single : singles(names))
    if (score.arms[single].nll.mean < score.arms[best].nll.mean) best = single;
  score.corpus_oracle = names[best];
  ArmScore oracle = score.arms[best];
  oracle.arm = "oracle:corpus";
  score.arms.push_back(std::move(oracle));
  const std::vector<double>& composed = score.arm("composed").block_nll;
  score.regret = Regret{paired_estimate(composed, score.arm("oracle:corpus").block_nll),
                        paired_estimate(composed, score.arm("oracle:token").block_nll)};
}

void Tally::finish(CorpusScore& score) {
  const std::vector<double> base = arms_.front().block_nll; // make_arms puts the base first
  for (ArmScore& arm : arms_) {
    arm.nll = estimate(arm.block_nll);
    arm.versus_base = paired_estimate(arm.block_nll, base);
    if (!std::isfinite(arm.nll.mean))
      throw Error(Code::numeric, "evaluation", score.name + ", " + arm.arm + ": the score is not finite");
  }
  const auto positions = static_cast<double>(positions_);
  for (std::size_t slot = 0; slot < experts_.size(); ++slot)
    score.loads.push_back(
        {experts_[slot], strength_[slot] / positions, static_cast<double>(strongest_[slot]) / positions});
  score.tokens = tokens_;
  score.arms = std::move(arms_);
  score.passages = std::move(passages_);
  add_oracles(score);
}

} // namespace tenon
