// Dialogues in JSONL: one object a line whose field holds [{"role": "user", "content": "..."}, ...]. Roles are system,
// user and assistant; contents are text. Members that would change what is to be learnt (tool_calls, weight) are
// refused by name, others are left alone. Thread: pure functions.
#pragma once

#include "host/formats/chat_template.hpp"
#include "host/formats/shards.hpp"
#include "registry/base/json.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tenon {

// where: "chats.jsonl:12". Errors: usage, with place, found and needed.
std::vector<ChatMessage> read_dialogue(const json::value& messages, const std::string& where);
// Whether the assistant says anything.
bool has_answer(const std::vector<ChatMessage>& dialogue);

// One dialogue as text, equal for equal dialogues; and back.
std::string dialogue_text(const std::vector<ChatMessage>& dialogue);
std::vector<ChatMessage> dialogue_from_text(std::string_view text);

// Its tokens, ended by the tokenizer's separator; what counts is what the assistant says.
MaskedDocument tokenise_dialogue(const std::vector<ChatMessage>& dialogue, const ChatTemplate& form,
                                 const Tokenizer& tokenizer);

} // namespace tenon
