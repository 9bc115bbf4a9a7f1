#include "host/evaluation/verdicts.hpp"

#include "registry/base/error.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>

namespace tenon {
namespace {

ArmScore arm(const std::string& name, double perplexity, double base, double half = 0.01) {
  ArmScore out{name, {}, {}, {}};
  out.nll.mean = std::log(perplexity);
  out.versus_base.mean = std::log(perplexity / base);
  out.versus_base.low = out.versus_base.mean - half;
  out.versus_base.high = out.versus_base.mean + half;
  return out;
}

// Perplexities: law by base 100, its expert alone, composed; news by base 30, composed; the interval's half width.
std::map<std::string, bool> verdicts(double alone, double composed, double general, double half = 0.01,
                                     double uniform = 80, double load = 0.9, ExpertForm form = ExpertForm::on_base) {
  Evaluation evaluation;
  CorpusScore law, news;
  law.name = "law", law.role = "legal", news.name = "news", news.role = "general";
  law.arms = {arm("base", 100, 100), arm("composed", composed, 100), arm("alone:legal", alone, 100, half)};
  if (alone < 100) law.gain_kept = std::log(100 / composed) / std::log(100 / alone);
  news.arms = {arm("base", 30, 30), arm("composed", general, 30), arm("alone:legal", 40, 30)};
  law.loads = {{"base", 1 - load, 1 - load}, {"legal", load, load}};
  evaluation.experts = {{"base", "", "", ExpertForm::base, true, 0, {}}, {"legal", "", "", form, true, 0, {}}};
  evaluation.corpora = {law, news};
  evaluation.pooled = {arm("base", 90, 90), arm("composed", 60, 90), arm("uniform", uniform, 90),
                       arm("random", 85, 90)};
  std::map<std::string, bool> out;
  for (const EvaluationVerdict& one : judge(evaluation)) out[one.rule + ":" + one.subject] = one.passed;
  return out;
}

TEST_CASE("a good composition passes every rule") {
  const auto good = verdicts(50, 53, 30.2);
  CHECK(good.size() == 6);
  for (const auto& [rule, passed] : good) CHECK(passed);
}

TEST_CASE("a gain below a tenth, or one whose interval holds 0, is none") {
  CHECK(verdicts(89, 89, 30).at("gain:law"));
  CHECK_FALSE(verdicts(91, 91, 30).at("gain:law"));
  CHECK_FALSE(verdicts(50, 50, 30, 0.7).at("gain:law"));
}

TEST_CASE("composed must keep four fifths of the gain in log-perplexity") {
  CHECK(verdicts(50, 100 * std::pow(0.5, 0.81), 30).at("kept:law"));
  CHECK_FALSE(verdicts(50, 100 * std::pow(0.5, 0.79), 30).at("kept:law"));
  CHECK_FALSE(verdicts(120, 90, 30).at("kept:law"));
}

TEST_CASE("an expert under one hundredth of its own positions counts as not composed") {
  CHECK(verdicts(50, 53, 30, 0.01, 80, 0.011).at("load:law"));
  CHECK_FALSE(verdicts(50, 53, 30, 0.01, 80, 0.009).at("load:law"));
}

TEST_CASE("an expert that replaces the base is held to keeping the gain it has, not to having one") {
  const auto without_gain = verdicts(120, 100, 30, 0.01, 80, 0.9, ExpertForm::replacing);
  CHECK(without_gain.count("gain:law") == 0);
  CHECK(without_gain.count("kept:law") == 0);
  CHECK(without_gain.at("load:law"));
  CHECK_FALSE(verdicts(50, 90, 30, 0.01, 80, 0.9, ExpertForm::replacing).at("kept:law"));
}

TEST_CASE("general text may be at most one hundredth worse") {
  CHECK(verdicts(50, 50, 30.29).at("general:news"));
  CHECK_FALSE(verdicts(50, 50, 30.31).at("general:news"));
}

TEST_CASE("pooled, composed must beat uniform and random rows") {
  CHECK_FALSE(verdicts(50, 50, 30, 0.01, 59).at("pooled:uniform"));
  CHECK(verdicts(50, 50, 30, 0.01, 59).at("pooled:random"));
}

TEST_CASE("a check without any corpus of a known role is refused") {
  Evaluation evaluation;
  evaluation.corpora.resize(1);
  CHECK_THROWS_AS(judge(evaluation), Error);
}

} // namespace
} // namespace tenon
