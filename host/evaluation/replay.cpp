#include "host/evaluation/replay.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

namespace tenon {
namespace {

std::string shown(const std::vector<TraceExpert>& experts) {
  std::string text;
  for (const TraceExpert& expert : experts) text += (text.empty() ? "" : ", ") + expert.title();
  return text;
}

void check_experts(const TraceFile& file, const Composition& composition) {
  const std::vector<TraceExpert> found = file.head().experts, need = traced_experts(composition);
  if (found == need) return;
  std::string message = fmt::format("found a trace of {}, this composition has {}", shown(found), shown(need));
  if (shown(found) == shown(need))
    for (std::size_t i = 0; i < need.size(); ++i)
      if (found[i].entry != need[i].entry)
        message += fmt::format("; {} is {} there, {} here", need[i].title(), found[i].entry, need[i].entry);
  throw Error(Code::incompatible, file.name(), message, "trace this composition, or open the one that was traced");
}

void check_corpus(const TraceFile& file, const EvaluationCorpus& corpus) {
  std::string names;
  for (const TraceCorpus& known : file.head().corpora) {
    names += (names.empty() ? "" : ", ") + known.name;
    if (known.name != corpus.name) continue;
    if (known.digest == corpus.tokens.digest() &&
        known.tokens == static_cast<std::int64_t>(corpus.tokens.tokens().size()))
      return;
    throw Error(
        Code::incompatible, file.name(),
        fmt::format("{}: found a trace of {} tokens with digest {}, the text given has {} with digest {}", corpus.name,
                    known.tokens, known.digest, corpus.tokens.tokens().size(), corpus.tokens.digest()),
        "give the text that was traced");
  }
  throw Error(Code::incompatible, file.name(),
              fmt::format("found a trace of {}, need one of {}", names.empty() ? "nothing" : names, corpus.name),
              "give the corpora that were traced, by the same names");
}

} // namespace

std::vector<TraceExpert> traced_experts(const Composition& composition) {
  std::vector<TraceExpert> out;
  for (const ExpertPackage& package : composition.packages())
    out.push_back({package.entry.name, package.entry.version.text(), package.entry.digest});
  return out;
}

Replay::Replay(const std::filesystem::path& path, const Composition& composition,
               const std::vector<EvaluationCorpus>& corpora, std::int64_t sequence_length)
    : file_(path) {
  const TraceHead& head = file_.head();
  if (const std::string& model = composition.model().contract().model_digest; head.model != model)
    throw Error(Code::incompatible, file_.name(),
                fmt::format("found a trace of the model {}, this composition has {}", head.model, model),
                "trace this composition, or open the one that was traced");
  check_experts(file_, composition);
  if (head.sequence_length != sequence_length)
    throw Error(Code::incompatible, file_.name(),
                fmt::format("found blocks of {} tokens, need {}", head.sequence_length, sequence_length),
                fmt::format("give --sequence-length {}", head.sequence_length));
  for (const EvaluationCorpus& one : corpora) check_corpus(file_, one);
}

const TraceCorpus& Replay::corpus(const std::string& name) const {
  for (const TraceCorpus& corpus : file_.head().corpora)
    if (corpus.name == name) return corpus;
  throw Error(Code::bug, file_.name(), "there is no corpus " + name);
}

at::Tensor Replay::strengths(const std::string& name, std::int64_t first, std::int64_t count) const {
  at::Tensor w_NE = at::empty({count, static_cast<std::int64_t>(file_.head().experts.size())});
  file_.strengths(corpus(name), first, {w_NE.data_ptr<float>(), static_cast<std::size_t>(w_NE.numel())});
  return w_NE;
}

at::Tensor Replay::blocks(const std::string& name, std::span<const std::size_t> blocks) const {
  const std::int64_t length = file_.head().sequence_length;
  std::vector<at::Tensor> parts;
  for (const std::size_t block : blocks)
    parts.push_back(strengths(name, static_cast<std::int64_t>(block) * length, length));
  return at::cat(parts);
}

} // namespace tenon
