#include "host/formats/byte_escape.hpp"
#include "host/formats/tokenizer.hpp"
#include "host/formats/utf8.hpp"

namespace tenon {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(&tokenizer), skip_special_(skip_special) {}

std::string StreamDecoder::push(std::int32_t id) {
  const std::string_view bytes = tokenizer_->token_bytes(id);
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  raw_ += bytes;
  return take(false);
}

std::string StreamDecoder::flush() { return take(true); }

std::string StreamDecoder::take(bool last) {
  if (tokenizer_->has_every_byte()) {
    pending_ += raw_;
    raw_.clear();
  } else {
    raw_.erase(0, unescape(raw_, last, pending_));
  }
  std::string_view rest = pending_;
  std::string out;
  while (!rest.empty()) {
    const std::size_t valid = utf8_valid_prefix(rest);
    out += rest.substr(0, valid);
    rest.remove_prefix(valid);
    const Utf8Step step = utf8_step(rest);
    if (rest.empty() || (step.incomplete && !last)) break;
    out += "\xEF\xBF\xBD";
    rest.remove_prefix(step.length_bytes);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return out;
}

} // namespace tenon
