// Cuts valid UTF-8 into words, as a tokenizer was trained to see them. The words joined are the text.
// Thread: immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

class Splitter {
 public:
  // name: one of known(). Errors: incompatible, naming it and the known.
  explicit Splitter(std::string_view name);

  // Appends the words; they borrow from the text. Requires: the text is valid UTF-8.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

  static const std::vector<std::string>& known(); // "gpt2", "smollm"
  // GPT-2's pattern as it stands in Hugging Face files.
  static std::string_view gpt2_pattern();

 private:
  struct Pattern;
  std::shared_ptr<const Pattern> pattern_;
};

} // namespace tenon
