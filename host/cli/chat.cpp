// tenon chat: a conversation, in the model's own template. What was said stays in the sequence's state, so a turn costs
// its new tokens alone.
#include "host/cli/generation.hpp"
#include "host/cli/opening.hpp"
#include "host/formats/dialogue.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

namespace tenon {
namespace {

struct ChatSettings {
  OpeningSettings opening;
  GenerationSettings generation;
  SessionFiles files;
  std::string system, chat_template;
};

class Conversation {
 public:
  Conversation(Composition& composition, const ChatTemplate& form, const ChatSettings& settings, Output& out)
      : tokenizer_(composition.model().tokenizer()),
        form_(form),
        settings_(settings),
        out_(out),
        saved_(open_session(composition, settings.generation, settings.files, out)),
        session_(saved_.session) {
    if (!settings.files.from.empty())
      resume();
    else if (!settings.system.empty())
      messages_.push_back({"system", settings.system});
  }

  // One turn. Returns how the answer ended.
  Finish say(const std::string& text) {
    messages_.push_back({"user", text});
    read(fitting());
    GenerateOptions options = settings_.generation.options();
    options.stop_ids = form_.stop_ids(tokenizer_);
    const std::vector<std::string> stops = form_.stops();
    options.stops.insert(options.stops.end(), stops.begin(), stops.end());
    // Every turn draws its own numbers.
    options.sampling.seed += turn_++;
    const Generation made = generate(session_, options, [&](const Piece& piece) {
      if (!out_.flags().json) out_.stream(piece.text);
    });
    if (!out_.flags().json) out_.line("");
    messages_.push_back({"assistant", made.text});
    return made.finish;
  }

  void forget() {
    messages_.erase(
        std::remove_if(messages_.begin(), messages_.end(), [](const ChatMessage& m) { return m.role != "system"; }),
        messages_.end());
  }

  json::array messages_json() const {
    json::array out;
    for (const ChatMessage& message : messages_)
      out.push_back(json::object{{"role", message.role}, {"content", message.content}});
    return out;
  }
  const Session& session() const { return session_; }

  void save() const {
    keep_session(session_, settings_.files,
                 {{"template", form_.family()}, {"messages", messages_json()}, {"turns", turn_}}, out_);
  }

 private:
  // Goes on with what was said, as the file tells it.
  void resume() {
    const json::value note = saved_.note;
    const JsonReader reader(note, settings_.files.from + " (note)");
    if (const std::string family = reader.at("template").string(); family != form_.family())
      throw Error(Code::incompatible, "chat",
                  fmt::format("found a conversation in the template {}, this one is in {}", family, form_.family()),
                  "give --template " + family);
    messages_ = read_dialogue(reader.at("messages").value(), settings_.files.from);
    turn_ = static_cast<std::uint64_t>(reader.at("turns").integer());
  }

  // The conversation's ids; where it no longer fits, its oldest turn is forgotten.
  std::vector<std::int32_t> fitting() {
    for (;;) {
      const std::vector<std::int32_t> ids = form_.encode(tokenizer_, messages_, true);
      if (static_cast<std::int64_t>(ids.size()) < session_.context()) return ids;
      const auto oldest =
          std::find_if(messages_.begin(), messages_.end(), [](const ChatMessage& m) { return m.role != "system"; });
      if (messages_.end() - oldest < 3)
        throw Error(Code::usage, "chat",
                    fmt::format("found a message of {} tokens, the context holds {}", ids.size(), session_.context()),
                    "say less at once, or raise the limit with --context");
      messages_.erase(oldest, oldest + 2);
      out_.note("the oldest turn no longer fits into the context and is forgotten");
    }
  }

  // Keeps what the session already holds of these ids, and appends the rest.
  void read(const std::vector<std::int32_t>& ids) {
    const std::vector<std::int32_t>& held = session_.tokens();
    const auto same = std::mismatch(held.begin(), held.end(), ids.begin(), ids.end()).second - ids.begin();
    session_.truncate(static_cast<std::size_t>(same));
    session_.append(std::span(ids).subspan(static_cast<std::size_t>(same)));
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate& form_;
  const ChatSettings& settings_;
  Output& out_;
  SavedSession saved_;
  Session& session_; // in saved_
  std::vector<ChatMessage> messages_;
  std::uint64_t turn_ = 0;
};

bool next_line(Context& context, bool asks, std::string& line) {
  if (asks) {
    std::fputs("> ", context.out.messages());
    std::fflush(context.out.messages());
  }
  return static_cast<bool>(std::getline(std::cin, line));
}

void chat(const ChatSettings& settings, Context& context) {
  (void)Sampler(settings.generation.options().sampling);
  if (!settings.chat_template.empty()) (void)ChatTemplate::named(settings.chat_template);
  const auto composition = open_composition(settings.opening, context);
  const Tokenizer& tokenizer = composition->model().tokenizer();
  const ChatTemplate form = ChatTemplate::choose(settings.chat_template, tokenizer);
  Conversation conversation(*composition, form, settings, context.out);
  const bool asks = isatty(STDIN_FILENO) && context.out.messages_on_terminal() && !context.flags.quiet;
  if (asks) context.out.note("One line a turn; /forget starts again, /exit or Ctrl-D ends.");
  bool stopped = false;
  for (std::string line; !stopped && next_line(context, asks, line);) {
    if (line == "/exit") break;
    if (line == "/forget")
      conversation.forget();
    else if (!line.empty())
      stopped = conversation.say(line) == Finish::interrupted;
  }
  conversation.save();
  if (stopped) throw Error(Code::interrupted, "chat", "stopped");
  if (context.flags.json)
    context.out.json(json::object{{"template", form.family()},
                                  {"messages", conversation.messages_json()},
                                  {"speed", speed_json(conversation.session())}});
  context.out.note(speed_text(conversation.session()));
}

} // namespace

void add_chat(CLI::App& app, Context& context) {
  auto settings = std::make_shared<ChatSettings>();
  settings->generation.sampling.temperature = 0.2;
  settings->generation.sampling.top_p = 0.9;
  CLI::App* command = app.add_subcommand("chat", "Talk, one line a turn, in the model's own template");
  add_opening_options(*command, settings->opening);
  add_generation_options(*command, settings->generation);
  CLI::Option* resume =
      command->add_option("--resume", settings->files.from, "Go on with a conversation that was saved")
          ->type_name("FILE");
  command->add_option("--save", settings->files.to, "Keep the conversation in this file when it ends")
      ->type_name("FILE");
  command->add_option("--system", settings->system, "What the model is told first")
      ->type_name("TEXT")
      ->excludes(resume);
  std::string known;
  for (const auto& [family, looks] : ChatTemplate::families()) known += (known.empty() ? "" : ", ") + family;
  command->add_option("--template", settings->chat_template, "A template family, in place of the model's own: " + known)
      ->type_name("NAME");
  examples(*command, {"tenon chat bot", "tenon chat smollm2 --system \"Answer in one sentence.\"",
                      "printf 'Hello\\nWhy?\\n' | tenon chat bot", "tenon chat bot --save talk.session",
                      "tenon chat bot --resume talk.session --save talk.session"});
  command->callback([settings, &context] { chat(*settings, context); });
}

} // namespace tenon
