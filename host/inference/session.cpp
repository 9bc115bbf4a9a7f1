#include "host/inference/session.hpp"

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

std::int64_t context_of(const Model& model) {
  constexpr std::int64_t kUnsaid = 2048;
  const json::value* found = model.manifest().config.if_contains("context_length");
  return found && found->is_int64() && found->as_int64() > 0 ? found->as_int64() : kUnsaid;
}

Session::Session(Composition& composition, SessionOptions options)
    : composition_(&composition),
      options_(std::move(options)),
      context_(options_.context > 0 ? options_.context : context_of(composition.model())),
      sequence_(composition.new_sequence()) {
  options_.prefill_chunk = std::max<std::int64_t>(options_.prefill_chunk, 1);
}

Session::Session(const Session& other, Sequence sequence)
    : composition_(other.composition_),
      options_(other.options_),
      context_(other.context_),
      sequence_(std::move(sequence)),
      tokens_(other.tokens_),
      strengths_(other.strengths_.fork()),
      logits_V_(other.logits_V_) {}

Session Session::fork() const { return Session(*this, sequence_.fork()); }

void Session::append(std::span<const std::int32_t> tokens) {
  if (static_cast<std::int64_t>(tokens.size()) > room())
    throw Error(Code::usage, "session",
                fmt::format("found {} tokens, the model's context holds {}", tokens_.size() + tokens.size(), context_),
                "give a shorter text, or raise the limit with --context at your own risk");
  const std::int64_t vocab = composition_->model().shape().vocab;
  for (const std::int32_t id : tokens)
    if (id < 0 || id >= vocab)
      throw Error(Code::usage, "session", fmt::format("found token {}, the vocabulary has {}", id, vocab));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

std::span<const float> Session::logits() {
  if (tokens_.empty()) throw Error(Code::usage, "session", "there is no token yet to continue from");
  while (positions_run() < tokens_.size()) {
    if (options_.interrupted && options_.interrupted())
      throw Error(Code::interrupted, "session", "stopped while reading the text");
    const auto left = std::span(tokens_).subspan(positions_run());
    const auto chunk = left.first(std::min<std::size_t>(left.size(), static_cast<std::size_t>(options_.prefill_chunk)));
    run(chunk, chunk.size() == left.size());
  }
  return {logits_V_.data_ptr<float>(), static_cast<std::size_t>(logits_V_.numel())};
}

// last: the chunk ends the text, so its last position's logits are wanted.
void Session::run(std::span<const std::int32_t> tokens, bool last) {
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t before = sequence_.length();
  const auto count = static_cast<std::int64_t>(tokens.size());
  logits_V_ = at::Tensor();
  try {
    const Batch batch = Batch::next(sequence_, tokens);
    const Head& head = composition_->model().head();
    const at::Tensor features_NC = head.features(composition_->middle(batch), batch);
    if (last) logits_V_ = head.logits(features_NC.narrow(0, count - 1, 1)).squeeze(0).contiguous();
    strengths_.append(composition_->last_strengths());
  } catch (...) {
    sequence_.truncate(before);
    throw;
  }
  (count > 1 ? speed_.prefill_tokens : speed_.decode_tokens) += count;
  (count > 1 ? speed_.prefill_seconds : speed_.decode_seconds) += seconds_since(start);
}

void Session::truncate(std::size_t length) {
  if (length >= tokens_.size()) return;
  tokens_.resize(length);
  // The last token is run again when logits are asked for: those of an earlier position are not kept.
  const std::size_t kept = std::min(positions_run(), length > 0 ? length - 1 : 0);
  sequence_.truncate(static_cast<std::int64_t>(kept));
  strengths_.truncate(static_cast<std::int64_t>(kept));
  logits_V_ = at::Tensor();
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
