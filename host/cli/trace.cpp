// tenon trace: what the router said and how well each token was predicted, as a file for other programs.
#include "host/evaluation/trace.hpp"
#include "host/cli/corpora.hpp"
#include "host/cli/opening.hpp"
#include "host/cli/progress.hpp"

#include <fmt/format.h>

#include <cmath>
#include <optional>

namespace tenon {
namespace {

struct TraceSettings {
  OpeningSettings opening;
  CorpusSettings corpora;
  std::int64_t sequence_length = 256;
  std::string out, replay;
};

Work total_of(const std::vector<Work>& all) {
  Work total;
  for (const Work& one : all) total += one;
  return total;
}

json::object result_json(const TraceResult& result, const Composition& composition, const std::string& out) {
  json::array corpora, masked;
  for (const TracedCorpus& corpus : result.corpora) {
    json::object loads;
    for (const Load& load : corpus.loads)
      loads[load.expert] = {{"mean_strength", load.mean_strength}, {"share_strongest", load.share_strongest}};
    corpora.push_back(json::object{{"name", corpus.name},
                                   {"digest", corpus.digest},
                                   {"documents", corpus.documents},
                                   {"tokens", corpus.tokens},
                                   {"predictions", corpus.predictions},
                                   {"nll", corpus.nll},
                                   {"perplexity", std::exp(corpus.nll)},
                                   {"loads", loads}});
  }
  json::object skipped;
  for (std::size_t slot = 0; slot < result.work.size(); ++slot)
    skipped[composition.packages()[slot].entry.name] = result.work[slot].skipped();
  for (const std::string& name : result.masked) masked.emplace_back(name);
  return {{"out", out},
          {"corpora", corpora},
          {"work_skipped", total_of(result.work).skipped()},
          {"work_skipped_by_expert", skipped},
          {"masked", masked}};
}

void show(const TraceResult& result, const Composition& composition, Context& context) {
  Table texts{{"text", "documents", "tokens", "perplexity"}, {}, {1, 2, 3}};
  for (const TracedCorpus& corpus : result.corpora)
    texts.rows.push_back({corpus.name, std::to_string(corpus.documents), std::to_string(corpus.tokens),
                          fmt::format("{:.2f}", std::exp(corpus.nll))});
  context.out.table(texts);
  context.out.line("");
  Table experts{{"expert"}, {}, {}};
  for (const TracedCorpus& corpus : result.corpora) experts.header.push_back("strength on " + corpus.name);
  experts.header.push_back("work skipped");
  for (std::size_t column = 1; column < experts.header.size(); ++column) experts.right_columns.push_back(column);
  for (std::size_t slot = 0; slot < result.work.size(); ++slot) {
    std::vector<std::string> row = {composition.packages()[slot].entry.name};
    for (const TracedCorpus& corpus : result.corpora)
      row.push_back(fmt::format("{:.3f}", corpus.loads[slot].mean_strength));
    row.push_back(fmt::format("{:.0f}%", 100 * result.work[slot].skipped()));
    experts.rows.push_back(row);
  }
  context.out.table(experts);
  context.out.note(fmt::format("{:.0f}% of expert work skipped", 100 * total_of(result.work).skipped()));
}

void run_trace(const TraceSettings& settings, Context& context) {
  const auto composition = open_composition(settings.opening, context);
  const std::vector<EvaluationCorpus> corpora =
      open_corpora(settings.corpora, settings.sequence_length, *composition, context);
  std::optional<Replay> replay;
  TraceOptions options;
  options.sequence_length = settings.sequence_length;
  if (!settings.replay.empty())
    options.replay = &replay.emplace(settings.replay, *composition, corpora, settings.sequence_length);
  options.interrupted = [] { return interrupted(); };
  std::optional<Progress> progress;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    if (!progress) progress.emplace(context.out, "tracing", total, "tokens");
    progress->update(done);
  };
  const TraceResult result = trace(*composition, corpora, settings.out, options);
  progress.reset();
  if (context.flags.json) return context.out.json(result_json(result, *composition, settings.out));
  show(result, *composition, context);
  context.out.note("wrote " + settings.out);
  context.out.next("tenon trace --help   (tensors by name and shape, and how to read them)");
}

const char* const kFormat = R"(
The file is safetensors. For each text NAME of N tokens in D documents, with E experts (the base first):
  NAME/tokens     int32   (N)     token ids
  NAME/documents  int64   (D+1)   where documents begin; the last is N
  NAME/scores     float32 (N,E)   the router's scores, log-odds in nats; column 0 the base's prior
  NAME/strengths  float32 (N,E)   as applied; each row sums to 1
  NAME/chosen     int32   (N,K)   experts by falling strength, -1 where fewer were chosen
  NAME/nll        float32 (N)     -log p(next token) in nats; NaN at the last token of a block
Experts, model, texts (with digests) and block length stand as JSON in the metadata "tenon.trace". In Python:
  from safetensors.numpy import load_file
  trace = load_file("trace.safetensors")
  print(trace["news/strengths"].mean(0)))";

} // namespace

void add_trace(CLI::App& app, Context& context) {
  auto settings = std::make_shared<TraceSettings>();
  CLI::App* command = app.add_subcommand("trace", "Record scores, strengths, chosen experts and losses of every token");
  add_opening_options(*command, settings->opening);
  add_corpus_options(*command, settings->corpora)->required();
  command
      ->add_option("--sequence-length", settings->sequence_length,
                   "Tokens of a block, each read as a sequence of its own")
      ->capture_default_str();
  command->add_option("--out", settings->out, "The file to write")->type_name("FILE.safetensors")->required();
  command
      ->add_option("--replay", settings->replay,
                   "An earlier trace of the same experts and texts: its strengths are forced, whatever the router says")
      ->type_name("FILE");
  examples(*command, {"tenon trace bot --data news=news/ --out trace.safetensors",
                      "tenon trace bot --data law=held-out:legal --sequence-length 128 --out law.safetensors --json",
                      "tenon trace bot --data news=news/ --replay trace.safetensors --out again.safetensors",
                      "tenon eval bot --data news=news/ --replay trace.safetensors"});
  command->footer(command->get_footer() + "\n" + kFormat);
  command->callback([settings, &context] { run_trace(*settings, context); });
}

} // namespace tenon
