// A report of a small composition with two experts on the base, one that replaces it and one to compare with, with
// everything a report may hold, and names that try to be markup.
#pragma once

#include "host/evaluation/results.hpp"
#include "host/report/lineage.hpp"
#include "tests/support/tiny_model.hpp"

namespace tenon::test {

inline const std::string kHostile = "</script><img src=x onerror=alert(1)>";

struct ReportedEvaluation {
  Tiny tiny;
  std::unique_ptr<Composition> composition;
  std::vector<VersusExpert> versus;
  Evaluation evaluation;
  std::vector<EvaluationVerdict> verdicts;

  ReportedEvaluation() : composition(tiny.compose({token("legal"), recurrent("medical"), causal("stack")})) {
    versus.push_back({"lora", tiny_expert(*tiny.model, token("plain"))});
    versus[0].package.manifest.provenance = {{"note", kHostile}, {"training_tokens", 40960}};
    EvaluationInput input;
    input.corpora = {
        {"law", "legal", shard("law")}, {kHostile, "general", shard("news")}, {"ward", "medical", shard("w")}};
    input.choices = {
        {"quiz", "sha256:0", parse_choices(R"({"question": "a?", "choices": ["b", "c"], "answer": 0})", "q")}};
    input.versus = versus;
    EvaluationOptions options;
    options.sequence_length = 32;
    options.passages = 1;
    evaluation = evaluate(*composition, input, options);
    verdicts = judge(evaluation);
  }

  // Ten blocks, one of them of text that would be markup.
  Shard shard(const std::string& name) const {
    std::vector<std::int32_t> ids = tokens(name, 32 * 9 + 5);
    const std::vector<std::int32_t> text = tiny.model->tokenizer().encode("<b>&\"'</b>\n" + kHostile);
    ids.insert(ids.begin() + 32 * 5, text.begin(), text.end());
    const std::vector<std::vector<std::int32_t>> documents = {ids};
    write_shard(tiny.scratch.path() / (name + ".tokens"), documents, tiny.model->tokenizer().vocab_size(),
                tiny.model->tokenizer().digest());
    return Shard::open(tiny.scratch.path() / (name + ".tokens"));
  }

  std::string page() const {
    TrainingCurve curve{"legal", {}};
    for (std::int64_t step = 1; step <= 60; ++step)
      curve.metrics.steps.push_back({step, 256, 4.0 + 3.0 / static_cast<double>(step), step % 4 == 0});
    curve.metrics.held_out.push_back({30, 90, 70, 80});
    return report_page({"bot",
                        "A test.",
                        evaluation,
                        &verdicts,
                        {curve},
                        lineage_of(*composition, versus),
                        to_json(evaluation, &verdicts)});
  }
};

} // namespace tenon::test
