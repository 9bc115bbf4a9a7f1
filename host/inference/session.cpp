#include "host/inference/session.hpp"

#include "host/inference/step.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace tenon {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

} // namespace

std::int64_t context_of(const Model& model, std::int64_t asked) {
  constexpr std::int64_t kUnsaid = 2048;
  const json::value* found = model.manifest().config.if_contains("context_length");
  const std::int64_t made_for = found && found->is_int64() && found->as_int64() > 0 ? found->as_int64() : kUnsaid;
  const std::int64_t context = asked > 0 ? asked : made_for, learned = model.shape().positions;
  return learned > 0 ? std::min(context, learned) : context;
}

std::string context_remedy(const Model& model) {
  if (const std::int64_t learned = model.shape().positions; learned > 0)
    return fmt::format("give a shorter text: this model learned {} positions", learned);
  return "give a shorter text, or raise the limit with --context at your own risk";
}

Session::Session(Composition& composition, SessionOptions options)
    : composition_(&composition),
      options_(std::move(options)),
      context_(context_of(composition.model(), options_.context)),
      sequence_(composition.new_sequence()),
      strengths_(composition.pool()) {
  options_.prefill_chunk = std::max<std::int64_t>(options_.prefill_chunk, 1);
  sequence_.excluded = options_.excluded;
}

Session::Session(const Session& other, Sequence sequence)
    : composition_(other.composition_),
      options_(other.options_),
      context_(other.context_),
      sequence_(std::move(sequence)),
      tokens_(other.tokens_),
      strengths_(other.strengths_.fork()),
      logits_V_(other.logits_V_) {}

Session Session::fork() const {
  Session other(*this, sequence_.fork());
  if (held()) other.back_to(strengths_.length());
  return other;
}

void Session::append(std::span<const std::int32_t> tokens) {
  if (static_cast<std::int64_t>(tokens.size()) > room())
    throw Error(Code::usage, "session",
                fmt::format("found {} tokens, the model's context holds {}", tokens_.size() + tokens.size(), context_),
                context_remedy(composition_->model()));
  const std::int64_t vocab = composition_->model().shape().vocab;
  for (const std::int32_t id : tokens)
    if (id < 0 || id >= vocab)
      throw Error(Code::usage, "session", fmt::format("found token {}, the vocabulary has {}", id, vocab));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

std::span<const float> Session::logits() {
  if (tokens_.empty()) throw Error(Code::usage, "session", "there is no token yet to continue from");
  // Logits of an earlier position are not kept: after a cut the last token is run again, unless others came behind it.
  if (positions_run() == tokens_.size() && !logits_V_.defined()) back_to(strengths_.length() - 1);
  const auto total = static_cast<std::int64_t>(tokens_.size() - positions_run());
  while (positions_run() < tokens_.size()) {
    if (options_.interrupted && options_.interrupted())
      throw Error(Code::interrupted, "session", "stopped while reading the text");
    const auto start = std::chrono::steady_clock::now();
    const auto left = static_cast<std::int64_t>(tokens_.size() - positions_run());
    const std::int64_t count = std::min(left, options_.prefill_chunk);
    const StepPart alone{this, held() ? 0 : count};
    step(*composition_, {&alone, 1});
    (count > 1 ? speed_.prefill_tokens : speed_.decode_tokens) += count;
    (count > 1 ? speed_.prefill_seconds : speed_.decode_seconds) += seconds_since(start);
    if (options_.progress && total > options_.prefill_chunk)
      options_.progress(total - static_cast<std::int64_t>(tokens_.size() - positions_run()), total);
  }
  return {logits_V_.data_ptr<float>(), static_cast<std::size_t>(logits_V_.numel())};
}

void Session::truncate(std::size_t length) {
  if (length >= tokens_.size()) return;
  tokens_.resize(length);
  back_to(static_cast<std::int64_t>(std::min(positions_run(), length)));
}

// What was read or run beyond is undone; the tokens stay.
void Session::back_to(std::int64_t length) {
  sequence_.truncate(length);
  strengths_.truncate(length);
  held_TE_ = logits_V_ = at::Tensor();
}

std::vector<float> Session::strengths(std::size_t position) const {
  const auto at = static_cast<std::int64_t>(position);
  const at::Tensor row_E = strengths_.rows(at, at + 1).squeeze(0).contiguous();
  std::vector<float> out(row_E.data_ptr<float>(), row_E.data_ptr<float>() + row_E.numel());
  const Experts& experts = composition_->experts();
  for (std::size_t slot = 1; slot < out.size(); ++slot)
    if (experts.masked(slot)) out[0] += std::exchange(out[slot], 0.0f);
  return out;
}

} // namespace tenon
