#include "host/inference/generate.hpp"

#include <algorithm>

namespace tenon {
namespace {

// Ids to pieces of text that are sure to stay.
class Writer {
 public:
  Writer(const Tokenizer& tokenizer, const GenerateOptions& options, const std::function<void(const Piece&)>& emit,
         std::string& text)
      : decoder_(tokenizer, options.skip_special), filter_(options.stops), emit_(emit), text_(text) {}

  // False once a stop string is complete.
  bool push(std::int32_t id, std::int64_t index) {
    write(filter_.push({decoder_.push(id), index}));
    return !filter_.stopped();
  }
  bool finish(std::int64_t index) {
    write(filter_.push({decoder_.flush(), index}));
    write(filter_.flush());
    return !filter_.stopped();
  }
  const std::string& found() const { return filter_.found(); }

 private:
  void write(const std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) {
      text_ += piece.text;
      if (emit_) emit_(piece);
    }
  }

  StreamDecoder decoder_;
  StopFilter filter_;
  const std::function<void(const Piece&)>& emit_;
  std::string& text_;
};

} // namespace

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

Generation generate(Session& session, const GenerateOptions& options, const std::function<void(const Piece&)>& emit) {
  const Sampler sampler(options.sampling);
  Generation out;
  Writer writer(session.composition().model().tokenizer(), options, emit, out.text);
  const auto vocab = static_cast<std::size_t>(session.composition().model().tokenizer().vocab_size());
  for (std::int64_t i = 0; i < options.max_tokens; ++i) {
    if (options.interrupted && options.interrupted()) {
      out.finish = Finish::interrupted;
      break;
    }
    if (session.room() < 1) {
      out.finish = Finish::context;
      break;
    }
    // A model may have more rows than the tokenizer has tokens; those stand for nothing and are not drawn.
    const std::span<const float> logits_V = session.logits();
    const std::int32_t id =
        sampler.sample(logits_V.first(std::min(vocab, logits_V.size())), static_cast<std::uint64_t>(i));
    session.append({&id, 1});
    out.tokens.push_back(id);
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      out.finish = Finish::stop_token;
      break;
    }
    if (!writer.push(id, i)) {
      out.finish = Finish::stop_string;
      break;
    }
  }
  const auto last = std::max<std::int64_t>(static_cast<std::int64_t>(out.tokens.size()) - 1, 0);
  if (!writer.finish(last)) out.finish = Finish::stop_string;
  out.stop = writer.found();
  return out;
}

} // namespace tenon
