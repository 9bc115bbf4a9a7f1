#include "host/evaluation/choice_scores.hpp"

#include "host/evaluation/arms.hpp"
#include "host/evaluation/scorer.hpp"
#include "host/evaluation/tally.hpp"
#include "host/inference/session.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr std::int64_t kRowsAtOnce = 1024;

// A context with each of its choices, as tokens; the first `given` of each are the context's.
struct AskedQuestion {
  std::vector<std::vector<std::int32_t>> tokens;
  std::size_t given = 0;
};

std::size_t common_prefix(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

AskedQuestion ask(const ChoiceQuestion& question, const Tokenizer& tokenizer, std::int64_t limit,
                  const std::string& where) {
  const auto encode = [&](const std::string& text) {
    std::vector<std::int32_t> ids = tokenizer.encode(text);
    if (tokenizer.add_bos() && tokenizer.bos()) ids.insert(ids.begin(), *tokenizer.bos());
    return ids;
  };
  const std::vector<std::int32_t> context = encode(question.context);
  AskedQuestion out{{}, context.size()};
  for (const std::string& choice : question.choices) {
    out.tokens.push_back(encode(question.context + choice));
    const auto count = static_cast<std::int64_t>(out.tokens.back().size());
    if (count > limit || count < 2)
      throw Error(
          Code::usage, "choices",
          fmt::format("{}: found {} tokens with a choice, need 2 to {}, the model's context", where, count, limit),
          "shorten the question, or leave it out");
    out.given = std::min({out.given, common_prefix(context, out.tokens.back()), out.tokens.back().size() - 1});
  }
  out.given = std::max<std::size_t>(out.given, 1); // the first token is never predicted
  return out;
}

// Questions, one sequence a choice.
struct PackedQuestions {
  Batch batch;
  std::vector<std::int64_t> first; // of each sequence, what predicts the choice's first token
};

PackedQuestions pack(std::span<const AskedQuestion> questions) {
  PackedQuestions out;
  std::vector<std::int64_t> ids;
  for (const AskedQuestion& question : questions)
    for (const std::vector<std::int32_t>& tokens : question.tokens) {
      out.batch.rows.push_back(
          {static_cast<std::int64_t>(ids.size()), static_cast<std::int64_t>(tokens.size()), 0, nullptr});
      out.first.push_back(static_cast<std::int64_t>(question.given) - 1);
      ids.insert(ids.end(), tokens.begin(), tokens.end());
    }
  out.batch.tokens_N = at::tensor(ids, at::kLong);
  return out;
}

// The log-likelihood of every sequence's choice.
std::vector<double> likelihoods(const PackedQuestions& packed, const at::Tensor& nll_P) {
  std::vector<double> out;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < packed.first.size(); ++i) {
    const std::int64_t count = packed.batch.rows[i].length - 1 - packed.first[i];
    out.push_back(-nll_P.narrow(0, offset, count).sum().item<double>());
    offset += count;
  }
  return out;
}

// 1 where an arm's likeliest choice is the right one, question by question.
struct ChoiceHits {
  std::string arm;
  std::vector<double> plain, normalised;

  void add(const ChoiceQuestion& question, std::span<const double> likelihood) {
    std::vector<double> by_byte(likelihood.begin(), likelihood.end());
    for (std::size_t i = 0; i < by_byte.size(); ++i) by_byte[i] /= static_cast<double>(question.choice_bytes[i]);
    const auto right = [&](std::span<const double> scores) {
      const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
      return best == static_cast<std::ptrdiff_t>(question.answer) ? 1.0 : 0.0;
    };
    plain.push_back(right(likelihood));
    normalised.push_back(right(by_byte));
  }
};

ChoiceAccuracy accuracy(const std::vector<double>& hits, const std::vector<double>& base) {
  ChoiceAccuracy out;
  for (const double hit : hits) out.share += hit / static_cast<double>(hits.size());
  std::tie(out.low, out.high) = wilson_interval(out.share, static_cast<double>(hits.size()));
  out.versus_base = paired_estimate(hits, base);
  return out;
}

void score_some(Composition& composition, const std::vector<VersusExpert>& versus,
                std::span<const ChoiceQuestion> questions, std::span<const AskedQuestion> asked,
                std::vector<ChoiceHits>& hits) {
  at::NoGradGuard no_grad;
  const PackedQuestions packed = pack(asked);
  const at::Tensor h_NC = composition.model().trunk().forward(packed.batch);
  ArmOptions options{0, 0, false, false, {}};
  LoadedExperts compared;
  for (const VersusExpert& one : versus) {
    options.versus.push_back(one.name);
    compared.push_back(one.package.expert);
  }
  const auto outputs = dense_outputs(composition.experts(), h_NC, packed.batch, compared);
  std::vector<at::Tensor> mixes;
  const std::vector<Arm> arms = make_arms(composition, h_NC, packed.batch, options);
  for (const Arm& arm : arms) mixes.push_back(mix(arm.strengths_NE[0], outputs));
  const auto nll_P = Scorer(composition.model().head(), packed.batch, packed.first)(mixes);
  for (std::size_t i = 0; i < arms.size(); ++i) {
    if (hits.size() == i) hits.push_back({arms[i].name, {}, {}});
    if (!nll_P[i].isfinite().all().item<bool>())
      throw Error(Code::numeric, "choices", arms[i].name + ": a likelihood is not finite");
    const std::vector<double> likelihood = likelihoods(packed, nll_P[i]);
    std::size_t at = 0;
    for (const ChoiceQuestion& question : questions) {
      hits[i].add(question, std::span(likelihood).subspan(at, question.choices.size()));
      at += question.choices.size();
    }
  }
}

std::int64_t rows_of(const AskedQuestion& question) {
  std::int64_t rows = 0;
  for (const auto& tokens : question.tokens) rows += static_cast<std::int64_t>(tokens.size());
  return rows;
}

} // namespace

ChoiceScore score_choices(Composition& composition, const std::vector<VersusExpert>& versus, const ChoiceSet& set,
                          const EvaluationOptions& options) {
  const Model& model = composition.model();
  std::vector<AskedQuestion> asked;
  ChoiceScore out{set.name, set.digest, static_cast<std::int64_t>(set.questions.size()), 0, {}};
  for (const ChoiceQuestion& question : set.questions) {
    asked.push_back(ask(question, model.tokenizer(), context_of(model),
                        fmt::format("{}, question {}", set.name, asked.size() + 1)));
    out.chance += 1.0 / static_cast<double>(question.choices.size() * set.questions.size());
  }
  std::vector<ChoiceHits> hits;
  for (std::size_t begin = 0, end = 0; begin < asked.size(); begin = end) {
    if (options.interrupted && options.interrupted())
      throw Error(Code::interrupted, "evaluation", "stopped; nothing was kept");
    for (std::int64_t rows = 0; end < asked.size() && (rows == 0 || rows + rows_of(asked[end]) <= kRowsAtOnce); ++end)
      rows += rows_of(asked[end]);
    score_some(composition, versus, std::span(set.questions).subspan(begin, end - begin),
               std::span(asked).subspan(begin, end - begin), hits);
    if (options.progress)
      options.progress("questions", static_cast<std::int64_t>(end), static_cast<std::int64_t>(asked.size()));
  }
  for (const ChoiceHits& arm : hits)
    out.arms.push_back({arm.arm, accuracy(arm.plain, hits[0].plain), accuracy(arm.normalised, hits[0].normalised)});
  return out;
}

} // namespace tenon
