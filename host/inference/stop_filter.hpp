// Holds text back while it may still be the beginning of a stop string, which may span several tokens.
// Thread: one.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace tenon {

// Text as it comes out, with the number of the generated token that completed it.
struct Piece {
  std::string text;
  std::int64_t token = 0;
};

class StopFilter {
 public:
  // Empty strings are left out.
  explicit StopFilter(std::vector<std::string> stops);

  // What may be shown now that this piece has come. Once stopped() nothing more comes out.
  std::vector<Piece> push(Piece piece);
  // What was held back; the text ended without a stop string.
  std::vector<Piece> flush();

  bool stopped() const { return !found_.empty(); }
  const std::string& found() const { return found_; } // the stop string that came

 private:
  std::vector<Piece> take(std::size_t bytes);

  std::vector<std::string> stops_;
  std::deque<Piece> held_;
  std::string text_; // of held_
  std::string found_;
};

} // namespace tenon
