// Cuts valid UTF-8 into words, as a tokenizer was trained to see them. The words joined are the text.
// Thread: immutable; any thread.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace tenon {

class Splitter {
 public:
  // name: "gpt2", "smollm", "llama3", "qwen2". Errors: incompatible, naming it and the known.
  explicit Splitter(std::string_view name);

  // Appends the words; they borrow from the text. Requires: the text is valid UTF-8.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

  // The splitter whose pattern stands so in Hugging Face files; nullopt for another pattern.
  static std::optional<std::string_view> of_written(std::string_view pattern);

 private:
  struct Pattern;
  std::shared_ptr<const Pattern> pattern_;
};

} // namespace tenon
