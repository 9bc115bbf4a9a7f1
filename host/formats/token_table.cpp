#include "host/formats/token_table.hpp"

#include "registry/base/error.hpp"

#include <bit>
#include <functional>
#include <limits>

namespace tenon {

void TokenTable::add(std::string_view text) {
  texts_ += text;
  if (texts_.size() > std::numeric_limits<std::uint32_t>::max())
    throw Error(Code::integrity, "tokenizer", "found a vocabulary of more than 4 GiB");
  ends_.push_back(static_cast<std::uint32_t>(texts_.size()));
}

std::string_view TokenTable::operator[](std::size_t id) const {
  const std::size_t begin = id == 0 ? 0 : ends_[id - 1];
  return std::string_view(texts_).substr(begin, ends_[id] - begin);
}

void TokenTable::reserve_index() {
  texts_.shrink_to_fit();
  ends_.shrink_to_fit();
  slots_.assign(std::bit_ceil(2 * size() + 1), -1);
}

bool TokenTable::index(std::int32_t id) {
  std::int32_t& slot = slots_[slot_for((*this)[static_cast<std::size_t>(id)])];
  if (slot >= 0) return false;
  slot = id;
  return true;
}

std::optional<std::int32_t> TokenTable::find(std::string_view text) const {
  const std::int32_t id = slots_[slot_for(text)];
  return id < 0 ? std::nullopt : std::optional(id);
}

// Where the text stands, or would.
std::size_t TokenTable::slot_for(std::string_view text) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = std::hash<std::string_view>()(text) & mask;
  while (slots_[at] >= 0 && (*this)[static_cast<std::size_t>(slots_[at])] != text) at = (at + 1) & mask;
  return at;
}

} // namespace tenon
