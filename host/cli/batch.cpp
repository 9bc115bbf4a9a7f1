#include "host/cli/batch.hpp"

#include "host/cli/input_lines.hpp"
#include "host/cli/numbers.hpp"
#include "host/cli/progress.hpp"
#include "host/formats/requests.hpp"
#include "host/inference/schedule.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <fmt/format.h>

#include <unistd.h>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <map>

namespace tenon {
namespace {

// A line with what it leaves open filled in, for this composition.
class Requests {
 public:
  Requests(const Composition& composition, const GenerationSettings& generation)
      : composition_(composition), generation_(generation) {}

  BatchRequest from(const RequestLine& line) const {
    const Tokenizer& tokenizer = composition_.model().tokenizer();
    BatchRequest out;
    out.id = line.id;
    out.options = generation_.options();
    if (line.max_tokens) out.options.max_tokens = *line.max_tokens;
    if (line.stops) out.options.stops = *line.stops;
    SamplingOptions& sampling = out.options.sampling;
    if (line.temperature) sampling.temperature = *line.temperature;
    if (line.top_k) sampling.top_k = *line.top_k;
    if (line.top_p) sampling.top_p = *line.top_p;
    if (line.seed) sampling.seed = static_cast<std::uint64_t>(*line.seed);
    if (line.experts) out.excluded = all_but(*line.experts);
    if (line.messages.empty()) {
      out.prompt = tokenizer.encode_prompt(line.prompt);
      if (tokenizer.eos()) out.options.stop_ids = {*tokenizer.eos()};
      return out;
    }
    const ChatTemplate form = ChatTemplate::of(tokenizer);
    out.prompt = form.encode(tokenizer, line.messages, true);
    out.options.stop_ids = form.stop_ids(tokenizer);
    for (const std::string& stop : form.stops()) out.options.stops.push_back(stop);
    return out;
  }

 private:
  std::vector<bool> all_but(const std::vector<std::string>& experts) const {
    const auto& packages = composition_.packages();
    std::vector<bool> out(packages.size(), true);
    out[0] = false;
    for (const std::string& name : experts) {
      bool found = false;
      std::vector<std::string> names;
      for (std::size_t slot = 0; slot < packages.size(); ++slot) {
        names.push_back(packages[slot].entry.name);
        if (names.back() == name) out[slot] = false, found = true;
      }
      if (!found)
        throw Error(Code::usage, "run",
                    fmt::format("found the expert \"{}\", the composition has {}", name, joined(names, ", ")),
                    "name some of these; the base always takes part");
    }
    return out;
  }

  const Composition& composition_;
  const GenerationSettings& generation_;
};

class BatchRun {
 public:
  BatchRun(const BatchSettings& settings, Context& context) : settings_(settings), context_(context) {
    if (settings.file == "-") {
      arriving_.emplace(STDIN_FILENO);
      return;
    }
    const BadRequest bad = [&](std::size_t number, const std::string& id, const Error& error) {
      refused(number, id, error);
    };
    const std::string text = read_file(settings.file, std::size_t{1} << 30);
    lines_ = read_requests(text, settings.file, settings.keep_going ? bad : BadRequest());
  }

  void run(Composition& composition, const GenerationSettings& generation) {
    Scheduler scheduler(composition, {settings_.max_sequences, settings_.prefill_chunk, settings_.budget_bytes,
                                      generation.context, !settings_.no_reuse});
    const Requests requests(composition, generation);
    for (const RequestLine& line : lines_) submit(requests, line, scheduler, settings_.keep_going);
    const auto total = static_cast<std::int64_t>(scheduler.waiting());
    bool stopped = false;
    Progress progress(context_.out, "answering", total, "requests");
    const auto start = std::chrono::steady_clock::now();
    while (!scheduler.idle() || arriving_) {
      if (!stopped && interrupted()) stopped = true, arriving_.reset(), scheduler.cancel_all();
      take_arrived(requests, scheduler);
      for (const Answer& answer : scheduler.step()) answered(answer, composition);
      progress.update(done_, fmt::format("{} under way, {} waiting, {} tokens", scheduler.running(),
                                         scheduler.waiting(), scheduler.tokens_written()));
    }
    progress.finish();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    context_.out.note(
        fmt::format("{} requests: wrote {} tokens in {:.1f} s, {:.1f} tokens/s; reused {} of {} tokens read", done_,
                    scheduler.tokens_written(), seconds, static_cast<double>(scheduler.tokens_written()) / seconds,
                    reused_, read_));
    if (stopped) throw Error(Code::interrupted, "run", "stopped; what was answered stands");
    if (first_error_)
      throw Error(first_error_->code, "run", fmt::format("{} requests were not answered, their lines say why", failed_),
                  first_error_->remedy);
  }

 private:
  // Whether it was taken. keep_going: else its error is answered.
  bool submit(const Requests& requests, const RequestLine& line, Scheduler& scheduler, bool keep_going) {
    line_of_[line.id] = line.line;
    try {
      scheduler.submit(requests.from(line));
      return true;
    } catch (const Error& error) {
      if (error.code == Code::bug) throw;
      const Error placed(error.code, "run", fmt::format("{}:{}: {}", settings_.file, line.line, error.message),
                         error.remedy);
      if (!keep_going) throw placed;
      refused(line.line, line.id, placed);
      return false;
    }
  }

  // What standard input has brought until now; waited for where there is nothing else to do. Others are under way when
  // a line is bad: it is answered with its error, and nothing more is taken unless one is to keep going.
  void take_arrived(const Requests& requests, Scheduler& scheduler) {
    while (arriving_) {
      const std::optional<std::string> text = scheduler.idle() ? arriving_->next() : arriving_->arrived();
      if (!text && !arriving_->ended()) return;
      const bool good = text && take_line(*text, requests, scheduler);
      if (!text || !(good || settings_.keep_going)) arriving_.reset();
    }
  }

  bool take_line(const std::string& text, const Requests& requests, Scheduler& scheduler) {
    try {
      const std::optional<RequestLine> line = reader_.next(text);
      return !line || submit(requests, *line, scheduler, true);
    } catch (const Error& error) {
      if (error.code == Code::bug) throw;
      refused(reader_.number(), reader_.id(), error);
      return false;
    }
  }

  void print(const json::object& answer) { context_.out.stream(json::serialize(answer) + "\n"); }

  void refused(std::size_t line, const std::string& id, const Error& error) {
    if (!first_error_) first_error_ = error;
    ++failed_;
    print({{"id", id.empty() ? json::value(nullptr) : json::value(id)},
           {"line", line},
           {"error", {{"code", code_name(error.code)}, {"message", error.message}, {"remedy", error.remedy}}}});
  }

  void answered(const Answer& answer, Composition& composition) {
    ++done_;
    read_ += answer.prompt_tokens, reused_ += answer.reused_tokens;
    if (answer.error) return refused(line_of_.at(answer.id), answer.id, *answer.error);
    json::object shares;
    for (std::size_t slot = 0; slot < answer.shares.size(); ++slot)
      shares[composition.packages()[slot].entry.name] = {{"tokens", answer.shares[slot].strongest},
                                                         {"mean_strength", answer.shares[slot].mean_strength}};
    print({{"id", answer.id},
           {"line", line_of_.at(answer.id)},
           {"text", answer.made.text},
           {"tokens", json::value_from(answer.made.tokens)},
           {"finish", finish_name(answer.made.finish)},
           {"stop", answer.made.stop},
           {"prompt_tokens", answer.prompt_tokens},
           {"reused_tokens", answer.reused_tokens},
           {"shares", shares},
           {"masked", masked_json(composition)},
           {"speed",
            {{"waited_seconds", answer.waited_seconds},
             {"first_token_seconds", answer.first_token_seconds},
             {"seconds", answer.seconds},
             {"tokens_per_second", answer.tokens_per_second()}}}});
  }

  const BatchSettings& settings_;
  Context& context_;
  std::vector<RequestLine> lines_;
  std::optional<InputLines> arriving_; // until its end
  RequestReader reader_{"-"};
  std::map<std::string, std::size_t> line_of_;
  std::int64_t done_ = 0, read_ = 0, reused_ = 0, failed_ = 0;
  std::optional<Error> first_error_;
};

} // namespace

CLI::Option* add_batch_options(CLI::App& command, BatchSettings& settings) {
  CLI::Option* batch =
      command
          .add_option("--batch", settings.file,
                      "Answer every request of this file, many at once: a JSON object a line with \"prompt\" or "
                      "\"messages\", and any of \"id\", \"max_tokens\", \"temperature\", \"top_k\", \"top_p\", "
                      "\"seed\", \"stop\", \"experts\"; - takes them from standard input as they arrive. Answers are "
                      "JSON lines, as they come")
          ->type_name("FILE");
  command.add_option("--max-sequences", settings.max_sequences, "Most requests under way at once")
      ->check(from_one())
      ->capture_default_str()
      ->needs(batch);
  command.add_option("--prefill-chunk", settings.prefill_chunk, "Most tokens of prompts that others wait for at once")
      ->check(from_one())
      ->capture_default_str()
      ->needs(batch);
  command
      .add_option("--budget", settings.budget_bytes,
                  "Most memory for what sequences remember, such as 512M or 1.5G; 0: no limit")
      ->transform(size_in_bytes())
      ->type_name("SIZE")
      ->needs(batch);
  command.add_flag("--no-reuse", settings.no_reuse, "Read every prompt anew, though others began alike")->needs(batch);
  command.add_flag("--keep-going", settings.keep_going, "Answer a bad request with its error, and go on")->needs(batch);
  return batch;
}

void run_batch(const OpeningSettings& opening, const BatchSettings& settings, const GenerationSettings& generation,
               Context& context) {
  BatchRun batch(settings, context);
  (void)Sampler(generation.options().sampling);
  const auto composition = open_composition(opening, context);
  say_context(composition->model(), generation, context.out);
  batch.run(*composition, generation);
}

} // namespace tenon
