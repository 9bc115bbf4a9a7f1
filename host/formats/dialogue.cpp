#include "host/formats/dialogue.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace tenon {
namespace {

const std::set<std::string_view> kRoles = {"system", "user", "assistant"};

[[noreturn]] void refuse(const std::string& where, const std::string& message) {
  throw Error(Code::usage, "corpus", fmt::format("{}: {}", where, message),
              "need {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...]} a line");
}

std::string text_at(const json::object& message, const char* key, const std::string& where) {
  const json::value* value = message.if_contains(key);
  if (!value || !value->is_string())
    refuse(where, fmt::format("found {} \"{}\", need a string", value ? "another kind of" : "no", key));
  return std::string(value->get_string());
}

} // namespace

std::vector<ChatMessage> read_dialogue(const json::value& messages, const std::string& where) {
  if (!messages.is_array()) refuse(where, "found no list of messages");
  std::vector<ChatMessage> out;
  for (const json::value& message : messages.get_array()) {
    const std::string here = fmt::format("{}: message {}", where, out.size() + 1);
    if (!message.is_object()) refuse(here, "found no object");
    for (const char* changes : {"tool_calls", "function_call", "weight"})
      if (const json::value* value = message.get_object().if_contains(changes); value && !value->is_null())
        refuse(here, fmt::format("found \"{}\", which is not supported", changes));
    ChatMessage read{text_at(message.get_object(), "role", here), text_at(message.get_object(), "content", here)};
    if (!kRoles.contains(read.role))
      refuse(here, fmt::format("found the role \"{}\", need system, user or assistant", read.role.substr(0, 40)));
    out.push_back(std::move(read));
  }
  return out;
}

bool has_answer(const std::vector<ChatMessage>& dialogue) {
  return std::any_of(dialogue.begin(), dialogue.end(), [](const ChatMessage& message) {
    return message.role == "assistant" && message.content.find_first_not_of(" \t\r\n") != std::string::npos;
  });
}

std::string dialogue_text(const std::vector<ChatMessage>& dialogue) {
  json::array list;
  for (const ChatMessage& message : dialogue)
    list.push_back(json::object{{"role", message.role}, {"content", message.content}});
  return canonical_json(list);
}

std::vector<ChatMessage> dialogue_from_text(std::string_view text) {
  return read_dialogue(parse_json(text, "dialogue"), "dialogue");
}

MaskedDocument tokenise_dialogue(const std::vector<ChatMessage>& dialogue, const ChatTemplate& form,
                                 const Tokenizer& tokenizer) {
  EncodedDialogue encoded = form.encode_dialogue(tokenizer, dialogue);
  MaskedDocument out{std::move(encoded.ids), std::move(encoded.answer)};
  if (tokenizer.separator()) {
    out.tokens.push_back(*tokenizer.separator());
    out.counts.push_back(false);
  }
  return out;
}

} // namespace tenon
