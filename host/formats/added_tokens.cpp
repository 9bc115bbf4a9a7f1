#include "host/formats/added_tokens.hpp"

#include "host/formats/utf8.hpp"

#include <algorithm>

namespace tenon {
namespace {

// Length of the white-space character (Unicode's property) at the start of the text, or 0.
std::size_t space_at_start(std::string_view text) {
  static constexpr std::array<std::string_view, 25> kSpaces = {
      "\t",     "\n",     "\v",     "\f",     "\r",     " ",      "\u0085", "\u00a0", "\u1680",
      "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
      "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  for (std::string_view space : kSpaces) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

std::size_t leading_space(std::string_view text) {
  std::size_t at = 0;
  while (const std::size_t length = space_at_start(text.substr(at))) at += length;
  return at;
}

// Where the white space that ends the text begins.
std::size_t trailing_space_start(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t start = end - 1;
    while (start > 0 && end - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (space_at_start(text.substr(start, end - start)) != end - start) break;
    end = start;
  }
  return end;
}

const AddedToken* match_at(const std::vector<AddedToken>& bucket, std::string_view text) {
  for (const AddedToken& token : bucket) {
    if (text.starts_with(token.content)) return &token;
  }
  return nullptr;
}

} // namespace

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens) {
  for (const AddedToken& token : tokens) {
    Buckets& buckets = token.normalized ? normalized_ : raw_;
    buckets[static_cast<unsigned char>(token.content.front())].push_back(token);
    any_normalized_ = any_normalized_ || token.normalized;
  }
  const auto longer = [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); };
  for (Buckets* buckets : {&raw_, &normalized_}) {
    for (auto& bucket : *buckets) std::stable_sort(bucket.begin(), bucket.end(), longer);
  }
}

std::vector<TextPart> AddedTokens::split(std::string_view text, bool special) const {
  std::vector<TextPart> parts;
  split_by(raw_, text, special, parts);
  if (!any_normalized_) return parts;
  std::vector<TextPart> refined;
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      refined.push_back(part);
    } else {
      split_by(normalized_, part.text, special, refined);
    }
  }
  return refined;
}

void AddedTokens::split_by(const Buckets& buckets, std::string_view text, bool special, std::vector<TextPart>& parts) {
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto& bucket = buckets[static_cast<unsigned char>(text[at])];
    const AddedToken* token = bucket.empty() ? nullptr : match_at(bucket, text.substr(at));
    if (!token) {
      ++at;
      continue;
    }
    std::size_t start = at;
    at += token->content.size();
    // A special token that is not asked for still hides what overlaps it: so the reference does.
    if (token->special && !special) continue;
    if (token->lstrip) start = done + trailing_space_start(text.substr(done, start - done));
    if (token->rstrip) at += leading_space(text.substr(at));
    if (start > done) parts.push_back({text.substr(done, start - done), -1});
    parts.push_back({text.substr(start, at - start), token->id});
    done = at;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
}

} // namespace tenon
