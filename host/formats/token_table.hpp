// A vocabulary's texts, in one piece, and the way back from a text to its id: small, for something that is in memory as
// long as the model is.
// Thread: immutable once filled; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

class TokenTable {
 public:
  // The next id's text. Errors: integrity (all together are more than 4 GiB).
  void add(std::string_view text);
  std::size_t size() const { return ends_.size(); }
  // Requires: id < size(). Borrowed from the table, until the next add.
  std::string_view operator[](std::size_t id) const;

  // Makes the ids' texts findable, in this order; all are added. False, and no change, where the text is found already.
  void reserve_index();
  bool index(std::int32_t id);
  std::optional<std::int32_t> find(std::string_view text) const;

 private:
  std::size_t slot_for(std::string_view text) const;

  std::string texts_;
  std::vector<std::uint32_t> ends_; // of each id's text
  std::vector<std::int32_t> slots_; // open addressing, -1: free; the size is a power of two
};

} // namespace tenon
