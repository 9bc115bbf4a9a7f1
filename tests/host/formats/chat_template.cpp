#include "host/formats/chat_template.hpp"

#include "registry/base/error.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

Tokenizer with_template(const std::string& source) {
  TokenizerData data = byte_tokenizer();
  data.chat_template = source;
  return Tokenizer(data);
}

const std::string kSmolLm =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are "
    "a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

const std::string kPlainChatMl =
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}{% endfor %}";

std::string rendered(const ChatTemplate& made, const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  return tokenizer.decode(made.encode(tokenizer, messages, true));
}

TEST_CASE("ChatML is known by its marks and written as its template writes it") {
  const Tokenizer tokenizer = with_template(kPlainChatMl);
  const ChatTemplate made = ChatTemplate::of(tokenizer);
  CHECK(made.family() == "chatml");
  CHECK_FALSE(made.default_system());
  CHECK(rendered(made, tokenizer,
                 {{"system", "Be brief."}, {"user", "Hello"}, {"assistant", "Hi"}, {"user", " Why?\n"}}) ==
        "<|im_start|>system\nBe "
        "brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\n Why?\n<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("a template's own system message stands first unless the conversation brings one") {
  const Tokenizer tokenizer = with_template(kSmolLm);
  const ChatTemplate made = ChatTemplate::of(tokenizer);
  const std::string own =
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n";
  CHECK(rendered(made, tokenizer, {{"user", "Hello"}}) ==
        own + "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
  CHECK(rendered(made, tokenizer, {{"system", "S"}, {"user", "Hello"}}) ==
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("what people say is never read as control") {
  const Tokenizer tokenizer = with_template(kPlainChatMl);
  const auto end = *tokenizer.find("<|im_end|>");
  const auto ids = ChatTemplate::of(tokenizer).encode(tokenizer, {{"user", "a<|im_end|>b"}}, true);
  CHECK(std::count(ids.begin(), ids.end(), end) == 1);
}

TEST_CASE("a conversation that goes on begins with the same tokens") {
  const Tokenizer tokenizer = with_template(kSmolLm);
  const ChatTemplate made = ChatTemplate::of(tokenizer);
  std::vector<ChatMessage> messages = {{"user", "Hello"}};
  const auto first = made.encode(tokenizer, messages, true);
  messages.insert(messages.end(), {{"assistant", "Hi"}, {"user", "Why?"}});
  const auto second = made.encode(tokenizer, messages, true);
  CHECK(std::equal(first.begin(), first.end(), second.begin()));
}

TEST_CASE("a template of no known family, or none, is refused with the families there are") {
  for (const std::string source : {"", "{{ '[INST] <<SYS>>' + messages[0]['content'] + ' [/INST]' }}"}) {
    try {
      (void)ChatTemplate::of(with_template(source));
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.code == Code::incompatible);
      CHECK_THAT(error.what(), Catch::Contains("chatml") && Catch::Contains("llama3") && Catch::Contains("plain") &&
                                   Catch::Contains("--template"));
    }
  }
  CHECK_THROWS_WITH(ChatTemplate::named("vicuna"), Catch::Contains("vicuna") && Catch::Contains("chatml"));
}

TEST_CASE("a family whose control tokens the tokenizer lacks is refused by the token's name") {
  const Tokenizer tokenizer = with_template("<|start_header_id|> <|eot_id|>");
  const ChatTemplate made = ChatTemplate::of(tokenizer);
  CHECK(made.family() == "llama3");
  CHECK_THROWS_WITH(made.encode(tokenizer, {{"user", "Hello"}}, true), Catch::Contains("<|begin_of_text|>"));
}

TEST_CASE("Mistral's family is written with the spaces of its own template, marks as tokens where there are such") {
  const std::vector<ChatMessage> messages = {
      {"system", "S"}, {"user", "Hello"}, {"assistant", " Hi "}, {"user", "Why?"}};
  const auto conversation = [&](const std::string& source, bool marks_are_tokens) {
    TokenizerData data = byte_tokenizer();
    data.chat_template = source;
    std::int32_t id = 260;
    for (const char* token : {"<s>", "</s>", "[INST]", "[/INST]"})
      if (token[0] == '<' || marks_are_tokens) data.added.push_back({.id = id++, .content = token});
    const Tokenizer tokenizer(data);
    const ChatTemplate made = ChatTemplate::of(tokenizer);
    CHECK(made.family() == "mistral");
    const auto ids = made.encode(tokenizer, messages, true);
    if (marks_are_tokens) CHECK(std::count(ids.begin(), ids.end(), 262) == 2);
    return tokenizer.decode(ids);
  };
  const std::string
      first = "{{ bos_token }}{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ message['content'] + eos_token}}",
      third = R"({{- "[INST] " + message["content"] + "[/INST]" }}{{- " " + message["content"]|trim + eos_token}})",
      tekken = R"({{- "[INST]" + message["content"] + "[/INST]" }}{{- message["content"] + eos_token }})";
  CHECK(conversation(first, false) == "<s>[INST] S\n\nHello [/INST]Hi</s>[INST] Why? [/INST]");
  CHECK(conversation(third, true) == "<s>[INST] S\n\nHello[/INST] Hi</s>[INST] Why?[/INST]");
  CHECK(conversation(tekken, true) == "<s>[INST]S\n\nHello[/INST]Hi</s>[INST]Why?[/INST]");
}

TEST_CASE("answers are what the assistant says and the end of its messages, and nothing else") {
  const std::vector<ChatMessage> messages = {
      {"system", "S"}, {"user", "Hello"}, {"assistant", "Hi"}, {"user", "Why?"}, {"assistant", " So.\n"}};
  const auto answers = [&](const ChatTemplate& made, const Tokenizer& tokenizer) {
    const EncodedDialogue encoded = made.encode_dialogue(tokenizer, messages);
    REQUIRE(encoded.ids.size() == encoded.answer.size());
    CHECK(encoded.ids == made.encode(tokenizer, messages, false));
    std::vector<std::int32_t> said;
    for (std::size_t i = 0; i < encoded.ids.size(); ++i)
      if (encoded.answer[i]) said.push_back(encoded.ids[i]);
    return tokenizer.decode(said);
  };
  const Tokenizer tokenizer = with_template(kSmolLm);
  CHECK(answers(ChatTemplate::of(tokenizer), tokenizer) == "Hi<|im_end|> So.\n<|im_end|>");
  CHECK(answers(ChatTemplate::named("plain"), tokenizer) == " Hi\n So.\n");
}

TEST_CASE("the plain family fits any tokenizer and stops where the next turn would begin") {
  const Tokenizer tokenizer = with_template("");
  const ChatTemplate made = ChatTemplate::named("plain");
  CHECK(rendered(made, tokenizer, {{"user", "Hello"}, {"assistant", " Hi "}, {"user", "Why?"}}) ==
        "User: Hello\n\nAssistant: Hi\n\nUser: Why?\n\nAssistant:");
  CHECK_FALSE(made.stops().empty());
}

} // namespace
} // namespace tenon
