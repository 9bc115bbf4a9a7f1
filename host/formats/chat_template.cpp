#include "host/formats/chat_template.hpp"

#include "registry/base/error.hpp"

namespace tenon {
namespace {

std::string family_list() {
  std::string text;
  for (const auto& [name, looks] : ChatTemplate::families()) text += (text.empty() ? "" : ", ") + name;
  return text;
}

[[noreturn]] void refuse(const std::string& found) {
  throw Error(
      Code::incompatible, "chat", found + "; known families: " + family_list(),
      "name one: tenon chat --template NAME, in training --set data.template=NAME (plain fits any model); in a batch "
      "give \"prompt\" instead of messages");
}

// The system message that a ChatML template writes where there is none: the literal text between
// "<|im_start|>system\n" and "<|im_end|>", if no expression stands in between.
std::optional<std::string> chatml_default_system(const std::string& source) {
  for (const std::string newline : {"\n", "\\n"}) {
    const std::string open = "<|im_start|>system" + newline;
    for (std::size_t at = source.find(open); at != std::string::npos; at = source.find(open, at + 1)) {
      const std::size_t begin = at + open.size(), end = source.find("<|im_end|>", begin);
      if (end == std::string::npos) break;
      const std::string text = source.substr(begin, end - begin);
      if (!text.empty() && text.find_first_of("'\"{}") == std::string::npos) return text;
    }
  }
  return std::nullopt;
}

// The spaces that stand beside this mark in its literal of the template.
std::string beside(const std::string& source, const std::string& mark) {
  const std::size_t at = source.find(mark), begin = source.find_last_of("'\"", at),
                    end = source.find_first_of("'\"", at);
  if (begin == std::string::npos || end == std::string::npos) return "";
  const std::string rest =
      source.substr(begin + 1, at - begin - 1) + source.substr(at + mark.size(), end - at - mark.size());
  return rest.find_first_not_of(' ') == std::string::npos ? rest : "";
}

// Mistral's template has no place for a system message: it stands at the head of the first message of the user.
std::vector<ChatMessage> without_system(const std::vector<ChatMessage>& messages) {
  if (messages.size() < 2 || messages[0].role != "system" || messages[1].role != "user") return messages;
  std::vector<ChatMessage> rest(messages.begin() + 1, messages.end());
  rest[0].content = messages[0].content + "\n\n" + rest[0].content;
  return rest;
}

std::string trimmed(const std::string& text) {
  const char* space = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(space);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(space) - begin + 1);
}

std::string plain_name(const std::string& role) {
  return role == "user" ? "User" : role == "assistant" ? "Assistant" : "System";
}

} // namespace

std::vector<std::pair<std::string, std::string>> ChatTemplate::families() {
  return {{"chatml", "<|im_start|>role ... <|im_end|>"},
          {"llama3", "<|start_header_id|>role<|end_header_id|> ... <|eot_id|>"},
          {"mistral", "[INST] ... [/INST]"},
          {"plain", "User: ... Assistant: ..."}};
}

ChatTemplate ChatTemplate::named(std::string_view family) {
  for (const auto& [name, looks] : families())
    if (name == family) return ChatTemplate(name);
  throw Error(Code::usage, "chat", "found template \"" + std::string(family) + "\", there are: " + family_list(),
              "give one of these");
}

ChatTemplate ChatTemplate::of(const Tokenizer& tokenizer) {
  const std::string& source = tokenizer.chat_template();
  if (source.empty()) refuse("this model has no chat template");
  if (source.find("<|im_start|>") != std::string::npos) {
    ChatTemplate made = named("chatml");
    made.default_system_ = chatml_default_system(source);
    return made;
  }
  if (source.find("<|start_header_id|>") != std::string::npos && source.find("<|eot_id|>") != std::string::npos)
    return named("llama3");
  // Llama 2 has the same marks, and others of its own.
  const bool marks = source.find("[INST]") != std::string::npos && source.find("[/INST]") != std::string::npos;
  if (marks && source.find("<<SYS>>") == std::string::npos) {
    ChatTemplate made = named("mistral");
    const auto has = [&](const char* text) { return source.find(text) != std::string::npos; };
    made.spaces_ = {beside(source, "[INST]"), beside(source, "[/INST]"),
                    has("' ' + message") || has("\" \" + message") ? " " : "",
                    has("' ' + eos_token") || has("\" \" + eos_token") ? " " : ""};
    return made;
  }
  refuse("this model's chat template is of no family we know (it begins \"" + source.substr(0, 60) + "\")");
}

void ChatTemplate::write(std::vector<Part>& parts, const ChatMessage& message) const {
  const bool answer = message.role == "assistant";
  if (family_ == "chatml") {
    parts.push_back({true, "<|im_start|>"});
    parts.push_back({false, message.role + "\n"});
    parts.push_back({false, message.content, false, answer});
    parts.push_back({true, "<|im_end|>", false, answer});
    parts.push_back({false, "\n"});
  } else if (family_ == "llama3") {
    parts.push_back({true, "<|start_header_id|>"});
    parts.push_back({false, message.role});
    parts.push_back({true, "<|end_header_id|>"});
    parts.push_back({false, "\n\n"});
    parts.push_back({false, trimmed(message.content), false, answer});
    parts.push_back({true, "<|eot_id|>", false, answer});
  } else if (family_ == "mistral" && answer) {
    parts.push_back({false, spaces_.before_answer + trimmed(message.content) + spaces_.after_answer, false, true});
    parts.push_back({true, "</s>", false, true});
  } else if (family_ == "mistral") {
    parts.push_back({false, "[INST]", true});
    parts.push_back({false, spaces_.after_open + message.content + spaces_.before_close});
    parts.push_back({false, "[/INST]", true});
  } else {
    parts.push_back({false, plain_name(message.role) + ":"});
    parts.push_back({false, " " + trimmed(message.content) + "\n", false, answer});
    parts.push_back({false, "\n"});
  }
}

void ChatTemplate::open_answer(std::vector<Part>& parts) const {
  if (family_ == "chatml") {
    parts.push_back({true, "<|im_start|>"});
    parts.push_back({false, "assistant\n"});
  } else if (family_ == "llama3") {
    parts.push_back({true, "<|start_header_id|>"});
    parts.push_back({false, "assistant"});
    parts.push_back({true, "<|end_header_id|>"});
    parts.push_back({false, "\n\n"});
  } else if (family_ == "plain") {
    parts.push_back({false, "Assistant:"});
  }
}

std::vector<ChatTemplate::Part> ChatTemplate::parts_of(const std::vector<ChatMessage>& messages) const {
  std::vector<Part> parts;
  if (family_ == "llama3") parts.push_back({true, "<|begin_of_text|>"});
  if (family_ == "mistral") parts.push_back({true, "<s>"});
  if (default_system_ && (messages.empty() || messages.front().role != "system"))
    write(parts, {"system", *default_system_});
  for (const ChatMessage& message : family_ == "mistral" ? without_system(messages) : messages) write(parts, message);
  return parts;
}

// Text between two control tokens, or up to where an answer begins or ends, is encoded as one piece.
EncodedDialogue ChatTemplate::encode(const Tokenizer& tokenizer, const std::vector<Part>& parts) const {
  EncodedDialogue out;
  std::string text;
  bool answer = false;
  const auto flush = [&] {
    const std::vector<std::int32_t> more = tokenizer.encode(text);
    out.ids.insert(out.ids.end(), more.begin(), more.end());
    out.answer.resize(out.ids.size(), answer);
    text.clear();
  };
  for (const Part& part : parts) {
    const auto id = part.control || part.mark ? tokenizer.find(part.text) : std::nullopt;
    const bool token = part.control || (id && tokenizer.is_special(*id));
    if (token || part.answer != answer) flush();
    answer = part.answer;
    if (!token) {
      text += part.text;
      continue;
    }
    if (!id) refuse("the tokenizer has no token " + part.text + ", which the family " + family_ + " needs");
    out.ids.push_back(*id);
    out.answer.push_back(answer);
  }
  flush();
  return out;
}

std::vector<std::int32_t> ChatTemplate::encode(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                                               bool answer) const {
  std::vector<Part> parts = parts_of(messages);
  if (answer) open_answer(parts);
  return encode(tokenizer, parts).ids;
}

EncodedDialogue ChatTemplate::encode_dialogue(const Tokenizer& tokenizer,
                                              const std::vector<ChatMessage>& messages) const {
  return encode(tokenizer, parts_of(messages));
}

std::vector<std::int32_t> ChatTemplate::stop_ids(const Tokenizer& tokenizer) const {
  std::vector<std::int32_t> ids;
  if (tokenizer.eos()) ids.push_back(*tokenizer.eos());
  for (const char* token : {"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>"})
    if (const auto id = tokenizer.find(token)) ids.push_back(*id);
  return ids;
}

std::vector<std::string> ChatTemplate::stops() const {
  return family_ == "plain" ? std::vector<std::string>{"\nUser:", "\nSystem:"} : std::vector<std::string>{};
}

} // namespace tenon
