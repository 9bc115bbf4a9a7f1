#include "host/inference/generate.hpp"

#include <algorithm>

namespace tenon {
const char* finish_name(Finish finish) {
  switch (finish) {
    case Finish::stop_token: return "stop-token";
    case Finish::stop_string: return "stop-string";
    case Finish::max_tokens: return "max-tokens";
    case Finish::context: return "context";
    case Finish::interrupted: return "interrupted";
  }
  return "?";
}

Writing::Writing(const Tokenizer& tokenizer, GenerateOptions options, std::function<void(const Piece&)> emit)
    : options_(std::move(options)),
      emit_(std::move(emit)),
      vocab_(static_cast<std::size_t>(tokenizer.vocab_size())),
      sampler_(options_.sampling),
      decoder_(tokenizer, options_.skip_special),
      filter_(options_.stops) {
  if (options_.max_tokens < 1) end(Finish::max_tokens);
}

std::int32_t Writing::take(std::span<const float> logits_V) {
  // A model may have more rows than the tokenizer has tokens; those stand for nothing and are not drawn.
  const auto index = static_cast<std::int64_t>(made_.tokens.size());
  const std::int32_t id =
      sampler_.sample(logits_V.first(std::min(vocab_, logits_V.size())), static_cast<std::uint64_t>(index));
  made_.tokens.push_back(id);
  if (std::find(options_.stop_ids.begin(), options_.stop_ids.end(), id) != options_.stop_ids.end()) {
    end(Finish::stop_token);
    return id;
  }
  write(filter_.push({decoder_.push(id), index}));
  if (filter_.stopped())
    end(Finish::stop_string);
  else if (index + 1 == options_.max_tokens)
    end(Finish::max_tokens);
  return id;
}

// What was held back comes out, and may yet complete a stop string.
void Writing::end(Finish why) {
  const auto last = std::max<std::int64_t>(static_cast<std::int64_t>(made_.tokens.size()) - 1, 0);
  write(filter_.push({decoder_.flush(), last}));
  write(filter_.flush());
  made_.finish = filter_.stopped() ? Finish::stop_string : why;
  made_.stop = filter_.found();
  finished_ = true;
}

void Writing::write(const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces) {
    made_.text += piece.text;
    if (emit_) emit_(piece);
  }
}

Generation generate(Session& session, const GenerateOptions& options, const std::function<void(const Piece&)>& emit) {
  Writing writing(session.composition().model().tokenizer(), options, emit);
  while (!writing.finished()) {
    if (options.interrupted && options.interrupted()) {
      writing.end(Finish::interrupted);
    } else if (session.room() < 1) {
      writing.end(Finish::context);
    } else {
      const std::int32_t id = writing.take(session.logits());
      session.append({&id, 1});
    }
  }
  return writing.made();
}

} // namespace tenon
