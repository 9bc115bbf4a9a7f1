#include "host/formats/tokenizer.hpp"

#include "host/formats/tokenizer_impl.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"

#include <unordered_map>

namespace tenon {
namespace {

// A message must not carry raw bytes or a page of text.
std::string shown(std::string_view token) {
  return "\"" + utf8_replaced(token.substr(0, 40)) + (token.size() > 40 ? "..." : "") + "\"";
}

[[noreturn]] void contradiction(const std::string& message) {
  throw Error(Code::integrity, "tokenizer", message, "import the model again from its source");
}

} // namespace

Tokenizer::Impl::Impl(TokenizerData given) : data(std::move(given)), added(checked_added()) {
  if (data.type == "bpe") {
    read_vocabulary();
    splitter.emplace(data.split);
    read_merges();
  } else if (data.type == "bytes") {
    if (!data.tokens.empty() || !data.merges.empty()) contradiction("a byte tokenizer with a vocabulary, need none");
    for (int byte = 0; byte < 256; ++byte) texts.add(std::string(1, static_cast<char>(byte)));
  } else {
    throw Error(Code::incompatible, "tokenizer", "found the type " + shown(data.type) + ", need bpe or bytes");
  }
  check_normalizer();
  place_added();
  index_tokens();
  find_bytes();
  check_id("bos", data.bos);
  check_id("eos", data.eos);
  if (data.add_bos && !data.bos) contradiction("add_bos is set, but there is no bos token");
  if (utf8_invalid_bytes(data.chat_template) > 0) contradiction("the chat template is not valid UTF-8");
}

const std::vector<AddedToken>& Tokenizer::Impl::checked_added() const {
  std::int32_t last = -1;
  for (const AddedToken& token : data.added) {
    if (token.content.empty()) contradiction("added token " + std::to_string(token.id) + " is empty");
    if (token.id <= last) contradiction("added tokens out of order at id " + std::to_string(token.id));
    if (utf8_invalid_bytes(token.content) > 0) {
      contradiction("added token " + std::to_string(token.id) + " is not valid UTF-8");
    }
    last = token.id;
  }
  return data.added;
}

void Tokenizer::Impl::check_normalizer() const {
  if (data.normalizer.empty()) return;
  const auto need = [](bool holds, const std::string& found, const char* needed) {
    if (!holds) throw Error(Code::incompatible, "tokenizer", "found " + found + ", need " + needed);
  };
  need(data.normalizer == "nfc", "the normalizer " + shown(data.normalizer), "nfc, or none");
  need(data.type == "bpe", "a normalizer with the type " + shown(data.type), "bpe");
  for (const AddedToken& token : data.added) {
    need(!token.normalized, "the added token " + shown(token.content) + " that is looked for in normalised text",
         "added tokens that are looked for in the text as it stands");
  }
}

void Tokenizer::Impl::read_vocabulary() {
  vocabulary = data.tokens.size();
  auto next_added = data.added.begin();
  for (std::size_t id = 0; id < data.tokens.size(); ++id) {
    std::string bytes;
    const std::string& token = data.tokens[id];
    while (next_added != data.added.end() && next_added->id < static_cast<std::int32_t>(id)) ++next_added;
    const bool is_added = next_added != data.added.end() && next_added->id == static_cast<std::int32_t>(id);
    if (is_added) {
      bytes = next_added->content;
      if (token != bytes) spelled.emplace(static_cast<std::int32_t>(id), token);
    } else if (token.empty() || !symbols_to_bytes(token, bytes)) {
      contradiction("token " + std::to_string(id) + " is " + shown(token) + ", need byte-level symbols");
    }
    texts.add(bytes);
  }
}

void Tokenizer::Impl::read_merges() {
  std::unordered_map<std::string_view, std::int32_t> ids;
  ids.reserve(data.tokens.size());
  for (std::size_t id = 0; id < data.tokens.size(); ++id) {
    if (!ids.emplace(data.tokens[id], static_cast<std::int32_t>(id)).second) {
      contradiction("token " + shown(data.tokens[id]) + " stands twice in the vocabulary");
    }
  }
  std::vector<Merge> merges;
  merges.reserve(data.merges.size());
  for (const auto& [left, right] : data.merges) {
    const auto a = ids.find(left), b = ids.find(right), both = ids.find(left + right);
    for (const auto& [part, found] : {std::pair{left, a}, {right, b}, {left + right, both}}) {
      if (found == ids.end()) {
        contradiction("merge " + std::to_string(merges.size()) + " needs the token " + shown(part) +
                      ", which the vocabulary lacks");
      }
    }
    merges.push_back({a->second, b->second, both->second});
  }
  bpe.emplace(merges);
}

void Tokenizer::Impl::place_added() {
  for (const AddedToken& token : data.added) {
    const auto id = static_cast<std::size_t>(token.id);
    if (id > texts.size()) {
      contradiction("added token " + shown(token.content) + " has the id " + std::to_string(id) + ", need " +
                    std::to_string(texts.size()) + " or less");
    }
    if (id == texts.size()) texts.add(token.content);
    if (texts[id] != token.content || (data.type == "bytes" && id < 256)) {
      contradiction("added token " + shown(token.content) + " takes the id " + std::to_string(id) + " of " +
                    shown(texts[id]));
    }
  }
  special.assign(texts.size(), false);
  for (const AddedToken& token : data.added) special[static_cast<std::size_t>(token.id)] = token.special;
}

void Tokenizer::Impl::index_tokens() {
  texts.reserve_index();
  for (const AddedToken& token : data.added)
    if (!texts.index(token.id)) contradiction("added token " + shown(token.content) + " stands twice");
  for (std::size_t id = 0; id < texts.size(); ++id) texts.index(static_cast<std::int32_t>(id));
}

void Tokenizer::Impl::find_bytes() {
  byte_ids.fill(-1);
  for (std::size_t id = 0; id < texts.size(); ++id) {
    const std::string_view text = texts[id];
    if (text.size() != 1 || special[id]) continue;
    byte_ids[static_cast<unsigned char>(text[0])] = static_cast<std::int32_t>(id);
  }
  every_byte = std::find(byte_ids.begin(), byte_ids.end(), -1) == byte_ids.end();
  if (every_byte) return;
  const auto need = [&](int byte) {
    if (byte_ids[static_cast<std::size_t>(byte)] >= 0) return;
    throw Error(Code::incompatible, "tokenizer",
                "the vocabulary lacks byte " + std::to_string(byte) +
                    ", need every byte, or at least ED and 80 to BF to write the others with");
  };
  need(0xED);
  for (int byte = 0x80; byte <= 0xBF; ++byte) need(byte);
}

void Tokenizer::Impl::check_id(const char* what, const std::optional<std::int32_t>& id) const {
  if (!id || (*id >= 0 && static_cast<std::size_t>(*id) < texts.size())) return;
  contradiction(std::string(what) + " is token " + std::to_string(*id) + ", need one below " +
                std::to_string(texts.size()));
}

TokenizerData Tokenizer::Impl::whole() const {
  TokenizerData out = data;
  std::vector<bool> as_it_is(texts.size(), false);
  for (const AddedToken& token : data.added) as_it_is[static_cast<std::size_t>(token.id)] = true;
  for (std::size_t id = 0; id < vocabulary; ++id)
    out.tokens.push_back(as_it_is[id] ? std::string(texts[id]) : bytes_to_symbols(texts[id]));
  for (const auto& [id, token] : spelled) out.tokens[static_cast<std::size_t>(id)] = token;
  if (!bpe) return out;
  for (const Merge& merge : bpe->merges())
    out.merges.emplace_back(out.tokens[static_cast<std::size_t>(merge.left)],
                            out.tokens[static_cast<std::size_t>(merge.right)]);
  return out;
}

void Tokenizer::Impl::encode_word(std::string_view word, std::vector<std::int32_t>& symbols,
                                  std::vector<std::int32_t>& out) const {
  symbols.clear();
  std::string escape;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const auto byte = static_cast<unsigned char>(word[i]);
    const std::int32_t id = byte_ids[byte];
    const bool escaped = !every_byte && (id < 0 || starts_with_escape(word.substr(i)));
    if (!escaped) {
      symbols.push_back(id);
      continue;
    }
    escape.clear();
    append_escape(escape, byte);
    for (char part : escape) symbols.push_back(byte_ids[static_cast<unsigned char>(part)]);
  }
  if (!bpe) {
    out.insert(out.end(), symbols.begin(), symbols.end());
    return;
  }
  if (data.ignore_merges) {
    const auto whole = texts.find(word);
    if (whole && !special[static_cast<std::size_t>(*whole)]) {
      out.push_back(*whole);
      return;
    }
  }
  bpe->merge(symbols, out);
}

// Text without added tokens: valid stretches in words, ill-formed ones as they stand.
void Tokenizer::Impl::encode_text(std::string_view text, std::vector<std::int32_t>& out) const {
  std::vector<std::int32_t> symbols;
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const std::size_t valid = splitter ? utf8_valid_prefix(text) : text.size();
    words.clear();
    std::string composed; // words borrow from it
    if (splitter) {
      const std::string_view part = text.substr(0, valid);
      splitter->split(data.normalizer.empty() ? part : utf8_composed(part, composed), words);
    } else {
      words.push_back(text);
    }
    text.remove_prefix(valid);
    std::size_t ill = 0;
    while (ill < text.size() && !utf8_step(text.substr(ill)).valid) ill += utf8_step(text.substr(ill)).length_bytes;
    if (ill > 0) words.push_back(text.substr(0, ill));
    text.remove_prefix(ill);
    for (std::string_view word : words) encode_word(word, symbols, out);
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(TokenizerData data) {
  auto impl = std::make_unique<Impl>(std::move(data));
  impl->digest = "sha256:" + sha256(tokenizer_json(impl->data));
  std::vector<std::string>().swap(impl->data.tokens);
  std::vector<std::pair<std::string, std::string>>().swap(impl->data.merges);
  impl_ = std::move(impl);
}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 4);
  for (const TextPart& part : impl_->added.split(text, parse_special)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      impl_->encode_text(part.text, ids);
    }
  }
  return ids;
}

std::vector<std::int32_t> Tokenizer::encode_prompt(std::string_view text) const {
  std::vector<std::int32_t> ids = encode(text, true);
  if (impl_->data.add_bos) ids.insert(ids.begin(), *impl_->data.bos);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string raw;
  for (std::int32_t id : ids) {
    const std::string_view bytes = token_bytes(id);
    if (!skip_special || !is_special(id)) raw += bytes;
  }
  if (impl_->every_byte) return raw;
  std::string text;
  unescape(raw, true, text);
  return text;
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    throw Error(Code::usage, "tokenizer",
                "found the id " + std::to_string(id) + ", need one from 0 to " + std::to_string(vocab_size() - 1));
  }
  return impl_->texts[static_cast<std::size_t>(id)];
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[static_cast<std::size_t>(id)];
}

std::optional<std::int32_t> Tokenizer::find(std::string_view token) const { return impl_->texts.find(token); }

std::optional<std::int32_t> Tokenizer::separator() const {
  const auto end_of_text = find("<|endoftext|>");
  return end_of_text && is_special(*end_of_text) ? end_of_text : eos();
}

std::int32_t Tokenizer::vocab_size() const { return static_cast<std::int32_t>(impl_->texts.size()); }
std::optional<std::int32_t> Tokenizer::bos() const { return impl_->data.bos; }
std::optional<std::int32_t> Tokenizer::eos() const { return impl_->data.eos; }
bool Tokenizer::add_bos() const { return impl_->data.add_bos; }
const std::string& Tokenizer::chat_template() const { return impl_->data.chat_template; }
const std::string& Tokenizer::type() const { return impl_->data.type; }
const TokenizerData& Tokenizer::data() const { return impl_->data; }
std::string Tokenizer::json() const { return tokenizer_json(impl_->whole()); }
const std::string& Tokenizer::digest() const { return impl_->digest; }
bool Tokenizer::has_every_byte() const { return impl_->every_byte; }

} // namespace tenon
