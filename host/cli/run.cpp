// tenon run: continues a prompt.
#include "host/cli/batch.hpp"
#include "host/cli/generation.hpp"
#include "host/cli/input_lines.hpp"
#include "host/cli/opening.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <unistd.h>
#include <boost/json/value_from.hpp>

namespace tenon {
namespace {

struct RunSettings {
  OpeningSettings opening;
  GenerationSettings generation;
  BatchSettings batch;
  SessionFiles files;
  std::string prompt;
  bool explain = false;
};

std::string prompt_text(const RunSettings& settings) {
  if (settings.prompt != "-") return settings.prompt;
  const std::string text = InputLines(STDIN_FILENO).rest();
  if (interrupted()) throw Error(Code::interrupted, "run", "stopped; nothing was written");
  return text;
}

// Which expert wrote generated token `index`: strengths at a position shape what follows it.
std::size_t writer(const Session& session, std::size_t prompt, std::int64_t index) {
  return strongest(session, prompt - 1 + static_cast<std::size_t>(index));
}

void explain(const Session& session, std::size_t prompt, const Generation& made, Output& out) {
  if (made.tokens.empty()) return;
  const std::size_t first = prompt - 1, last = first + made.tokens.size();
  const std::vector<ExpertShare> shares = expert_shares(session, first, last);
  Table table{{"expert", "tokens it wrote", "share", "mean strength", "work skipped"}, {}, {1, 2, 3, 4}};
  for (std::size_t slot = 0; slot < shares.size(); ++slot)
    table.rows.push_back({out.paint_index(slot, shares[slot].expert), std::to_string(shares[slot].strongest),
                          fmt::format("{:.0f}%", 100.0 * static_cast<double>(shares[slot].strongest) /
                                                     static_cast<double>(last - first)),
                          fmt::format("{:.3f}", shares[slot].mean_strength),
                          fmt::format("{:.0f}%", 100.0 * shares[slot].work_skipped)});
  out.line("");
  out.table(table);
}

json::object result_json(const Session& session, std::size_t prompt, const Generation& made) {
  json::array strengths, experts;
  const std::size_t last = made.tokens.empty() ? prompt - 1 : prompt - 1 + made.tokens.size();
  for (std::size_t position = prompt - 1; position < last; ++position)
    strengths.push_back(json::value_from(session.strengths(position)));
  json::object shares;
  for (const ExpertShare& share : expert_shares(session, prompt - 1, last))
    shares[share.expert] = {
        {"tokens", share.strongest}, {"mean_strength", share.mean_strength}, {"work_skipped", share.work_skipped}};
  for (const ExpertPackage& package : session.composition().packages()) experts.emplace_back(package.entry.title());
  return {{"text", made.text},
          {"tokens", json::value_from(made.tokens)},
          {"finish", finish_name(made.finish)},
          {"stop", made.stop},
          {"prompt_tokens", prompt},
          {"experts", experts},
          {"strengths", strengths},
          {"shares", shares},
          {"masked", masked_json(session.composition())},
          {"speed", speed_json(session)}};
}

void run(const RunSettings& settings, Context& context) {
  const bool resumes = !settings.files.from.empty();
  if (!resumes && settings.prompt.empty() == settings.batch.file.empty())
    throw Error(Code::usage, "run",
                fmt::format("found {} a prompt {} a file of requests with --batch, need one of them",
                            settings.prompt.empty() ? "neither" : "both", settings.prompt.empty() ? "nor" : "and"),
                "tenon run NAME \"Once upon a time\", or tenon run NAME --batch requests.jsonl");
  if (!settings.batch.file.empty()) return run_batch(settings.opening, settings.batch, settings.generation, context);
  const GenerateOptions base = settings.generation.options();
  (void)Sampler(base.sampling); // a wrong option is said before anything is loaded
  settings.files.check();
  const auto composition = open_composition(settings.opening, context);
  const Tokenizer& tokenizer = composition->model().tokenizer();
  Session session = open_session(*composition, settings.generation, settings.files, context.out).session;
  session.append(resumes ? tokenizer.encode(prompt_text(settings), true)
                         : tokenizer.encode_prompt(prompt_text(settings)));
  const std::size_t prompt = session.tokens().size();
  if (prompt == 0)
    throw Error(Code::usage, "run", "found an empty prompt, need at least one token",
                "tenon run NAME \"Once upon a time\"");

  GenerateOptions options = base;
  if (tokenizer.eos()) options.stop_ids = {*tokenizer.eos()};
  const bool streams = !context.flags.json;
  const Generation made = generate(session, options, [&](const Piece& piece) {
    if (!streams) return;
    context.out.stream(settings.explain ? context.out.paint_index(writer(session, prompt, piece.token), piece.text)
                                        : piece.text);
  });

  if (context.flags.json) {
    context.out.json(result_json(session, prompt, made));
  } else {
    context.out.line("");
    if (settings.explain) explain(session, prompt, made, context.out);
  }
  context.out.note(speed_text(session));
  keep_session(session, settings.files, {}, context.out);
  if (made.finish == Finish::context)
    context.out.warn(fmt::format("the model's context of {} tokens is full", session.context()));
  if (made.finish == Finish::interrupted) throw Error(Code::interrupted, "run", "stopped; what was written stands");
}

} // namespace

void add_run(CLI::App& app, Context& context) {
  auto settings = std::make_shared<RunSettings>();
  CLI::App* command = app.add_subcommand("run", "Continue a text");
  add_opening_options(*command, settings->opening);
  command->add_option("prompt", settings->prompt, "The text to continue; - reads it from standard input");
  add_generation_options(*command, settings->generation);
  CLI::Option* batch = add_batch_options(*command, settings->batch);
  command
      ->add_option("--session", settings->files.from,
                   "Go on from a session saved with --save-session; the prompt, if any, is put behind it")
      ->type_name("FILE")
      ->excludes(batch);
  command
      ->add_option("--save-session", settings->files.to, "Keep what was read and written in this file, to go on from")
      ->type_name("FILE")
      ->excludes(batch);
  command->add_flag("--explain", settings->explain, "Colour each token by the expert that was strongest, and sum up")
      ->excludes(batch);
  examples(*command,
           {"tenon run bot \"The contract ends\" --explain", "tenon run smollm2 \"Once upon a time\" --max-tokens 64",
            "echo \"2 + 2 =\" | tenon run bot - --temperature 0.8 --top-p 0.9 --seed 7",
            "tenon run bot \"$(cat contract.txt)\" --max-tokens 1 --save-session contract.session",
            "tenon run bot \"Who pays?\" --session contract.session",
            "tenon run bot --batch requests.jsonl --max-sequences 16 --budget 1G > answers.jsonl"});
  command->callback([settings, &context] { run(*settings, context); });
}

} // namespace tenon
