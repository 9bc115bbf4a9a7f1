// tenon chat: a conversation, in the model's own template. What was said stays in the sequence's state, so a turn costs
// its new tokens alone.
#include "host/cli/generation.hpp"
#include "host/cli/input_lines.hpp"
#include "host/cli/opening.hpp"
#include "host/formats/dialogue.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

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

  // One turn. Returns how the answer ended. What is not answered is no part of the conversation.
  // Errors: usage, for a message that the context cannot hold; those of Session.
  Finish say(const std::string& text) {
    std::vector<ChatMessage> kept = messages_;
    messages_.push_back({"user", text});
    try {
      const Generation made = answered();
      if (made.finish == Finish::interrupted && made.text.empty())
        messages_ = std::move(kept);
      else
        messages_.push_back({"assistant", made.text});
      return made.finish;
    } catch (...) {
      messages_ = std::move(kept);
      throw;
    }
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

  // Nothing where nothing was said: an earlier conversation in that file stays.
  void save() const {
    if (std::none_of(messages_.begin(), messages_.end(), [](const ChatMessage& m) { return m.role == "user"; })) return;
    keep_session(session_, settings_.files,
                 {{"template", form_.family()}, {"messages", messages_json()}, {"turns", turn_}}, out_);
  }
  // While something else is wrong already.
  void save_if_possible() const {
    try {
      save();
    } catch (const Error& error) {
      out_.warn(fmt::format("the conversation was not saved: {}", error.message));
    }
  }

 private:
  Generation answered() {
    read(fitting());
    GenerateOptions options = settings_.generation.options();
    options.stop_ids = form_.stop_ids(tokenizer_);
    const std::vector<std::string> stops = form_.stops();
    options.stops.insert(options.stops.end(), stops.begin(), stops.end());
    // Every turn draws its own numbers.
    options.sampling.seed += turn_++;
    const bool shown = !out_.flags().json;
    Generation made = generate(session_, options, [&](const Piece& piece) {
      if (shown) out_.stream(piece.text);
    });
    if (shown) out_.stream("\n");
    return made;
  }

  // Goes on with what was said, as the file tells it.
  void resume() {
    const json::value note = saved_.note;
    const JsonReader reader(note, settings_.files.from + " (note)");
    if (!reader.has("template"))
      throw Error(Code::incompatible, "chat",
                  fmt::format("found a text in {}, need a conversation: tenon run saved it", settings_.files.from),
                  fmt::format("go on with tenon run {} --session {}, or begin a conversation without --resume",
                              settings_.opening.name, settings_.files.from));
    if (const std::string family = reader.at("template").string(); family != form_.family())
      throw Error(Code::incompatible, "chat",
                  fmt::format("found a conversation in the template {}, this one is in {}", family, form_.family()),
                  "give --template " + family);
    messages_ = read_dialogue(reader.at("messages").value(), settings_.files.from);
    turn_ = static_cast<std::uint64_t>(reader.at("turns").integer());
  }

  // The conversation's ids; where it no longer fits, its oldest turns are forgotten. A message that would not fit alone
  // is refused before that.
  std::vector<std::int32_t> fitting() {
    std::vector<ChatMessage> kept = messages_;
    for (;;) {
      const std::vector<std::int32_t> ids = form_.encode(tokenizer_, kept, true);
      if (static_cast<std::int64_t>(ids.size()) < session_.context()) {
        for (std::size_t turn = 0; turn < (messages_.size() - kept.size()) / 2; ++turn)
          out_.note("the oldest turn no longer fits into the context and is forgotten");
        messages_ = std::move(kept);
        return ids;
      }
      const auto oldest =
          std::find_if(kept.begin(), kept.end(), [](const ChatMessage& m) { return m.role != "system"; });
      if (kept.end() - oldest < 3)
        throw Error(Code::usage, "chat",
                    fmt::format("found a message of {} tokens, the context holds {}", ids.size(), session_.context()),
                    "say less at once, or raise the limit with --context");
      kept.erase(oldest, oldest + 2);
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

std::optional<std::string> next_line(InputLines& lines, bool asks, Context& context) {
  if (asks) {
    std::fputs("> ", context.out.messages());
    std::fflush(context.out.messages());
  }
  std::optional<std::string> line = lines.next();
  if (line && line->ends_with('\r')) line->pop_back(); // typed elsewhere
  if (line) line = utf8_replaced(*line);
  return line;
}

// Until the input ends or the user leaves. Errors: interrupted; those of Conversation::say but usage, which is said,
// and the next line is heard.
void talk(Conversation& conversation, bool asks, Context& context) {
  InputLines lines(STDIN_FILENO);
  while (const std::optional<std::string> line = next_line(lines, asks, context)) {
    if (*line == "/exit") return;
    if (*line == "/forget") {
      conversation.forget();
    } else if (!line->empty()) {
      try {
        if (conversation.say(*line) == Finish::interrupted) break;
      } catch (const Error& error) {
        if (error.code != Code::usage) throw;
        context.out.warn(fmt::format("{}; the conversation stays as it was{}{}", error.message,
                                     error.remedy.empty() ? "" : "; ", error.remedy));
      }
    }
  }
  if (interrupted()) throw Error(Code::interrupted, "chat", "stopped");
}

// However it ends, the conversation is saved.
void talk_and_save(Conversation& conversation, bool asks, Context& context) {
  signal(SIGPIPE, SIG_IGN); // a reader who goes away is then an error as any other
  (void)interrupted();      // from here on Ctrl-C is heard, and does not end the program by itself
  try {
    talk(conversation, asks, context);
  } catch (...) {
    conversation.save_if_possible();
    throw;
  }
  conversation.save();
}

void chat(const ChatSettings& settings, Context& context) {
  (void)Sampler(settings.generation.options().sampling);
  if (!settings.chat_template.empty()) (void)ChatTemplate::named(settings.chat_template);
  settings.files.check();
  const auto composition = open_composition(settings.opening, context);
  const Tokenizer& tokenizer = composition->model().tokenizer();
  const ChatTemplate form = ChatTemplate::choose(settings.chat_template, tokenizer);
  Conversation conversation(*composition, form, settings, context.out);
  const bool asks = isatty(STDIN_FILENO) && context.out.messages_on_terminal() && !context.flags.quiet;
  if (asks) context.out.note("One line a turn; /forget starts again, /exit or Ctrl-D ends.");
  talk_and_save(conversation, asks, context);
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
