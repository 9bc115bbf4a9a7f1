// A conversation as tokens, the way a model was taught.
//
// Templates are written in Jinja; we run none of it. We know families by their marks and write them ourselves; a
// template of no known family is refused, with the families there are. What people say is never read as control: the
// text "<|im_end|>" in a message is ten ordinary characters, not the end of the message.
// Thread: immutable; any.
#pragma once

#include "host/formats/tokenizer.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

struct ChatMessage {
  std::string role; // "system", "user", "assistant"
  std::string content;
  bool operator==(const ChatMessage&) const = default;
};

struct EncodedDialogue {
  std::vector<std::int32_t> ids;
  std::vector<bool> answer; // of each id: whether the assistant says it, the end of its message included
};

class ChatTemplate {
 public:
  // "chatml", "llama3", "mistral", "plain", each with one line on what it looks like.
  static std::vector<std::pair<std::string, std::string>> families();
  // A family by name. Errors: usage, with the list.
  static ChatTemplate named(std::string_view family);
  // The family of the model's own template, with its default system message. Errors: incompatible, with the list, where
  // there is no template or its family is not known.
  static ChatTemplate of(const Tokenizer& tokenizer);

  // By name, or the model's own where the name is empty. Errors: as of those.
  static ChatTemplate choose(const std::string& name, const Tokenizer& tokenizer) {
    return name.empty() ? of(tokenizer) : named(name);
  }

  const std::string& family() const { return family_; }
  // What the template itself puts first where a conversation has no system message.
  const std::optional<std::string>& default_system() const { return default_system_; }

  // The ids of the conversation; answer: followed by what makes the model answer.
  // Errors: incompatible, if the tokenizer lacks one of the family's control tokens.
  std::vector<std::int32_t> encode(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                                   bool answer) const;
  // A finished conversation, and which of its ids are answers. What the assistant says is encoded apart from the header
  // before it, as it is when a model writes it.
  EncodedDialogue encode_dialogue(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) const;
  // Tokens and strings that end an answer.
  std::vector<std::int32_t> stop_ids(const Tokenizer& tokenizer) const;
  std::vector<std::string> stops() const;

 private:
  // A control token, or text. A mark is a control token where the tokenizer has it, else text.
  struct Part {
    bool control;
    std::string text;
    bool mark = false;
    bool answer = false; // the assistant says it
  };
  // What stands beside Mistral's marks; its templates differ in nothing else.
  struct Spaces {
    std::string after_open = " ", before_close = " ", before_answer, after_answer;
  };
  explicit ChatTemplate(std::string family) : family_(std::move(family)) {}
  std::vector<Part> parts_of(const std::vector<ChatMessage>& messages) const;
  EncodedDialogue encode(const Tokenizer& tokenizer, const std::vector<Part>& parts) const;
  void write(std::vector<Part>& parts, const ChatMessage& message) const;
  void open_answer(std::vector<Part>& parts) const;

  std::string family_;
  std::optional<std::string> default_system_;
  Spaces spaces_;
};

} // namespace tenon
