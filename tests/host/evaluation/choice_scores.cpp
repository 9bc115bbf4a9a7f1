#include "host/evaluation/choice_scores.hpp"

#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

// log p(choice | context) of a composition, from its forward path alone. Bytes are tokens here.
double by_forward(Composition& composition, const std::string& context, const std::string& choice) {
  const std::vector<std::int32_t> ids = composition.model().tokenizer().encode(context + choice);
  const at::Tensor tokens_T = tensor_of(ids);
  const at::Tensor log_p = composition.forward(Batch::whole(tokens_T.unsqueeze(0))).to(at::kDouble).log_softmax(1);
  double sum = 0;
  for (std::size_t t = context.size(); t < ids.size(); ++t)
    sum += log_p[static_cast<std::int64_t>(t) - 1][ids[t]].item<double>();
  return sum;
}

std::size_t likeliest(Composition& composition, const ChoiceQuestion& question, bool normalised) {
  std::size_t best = 0;
  double best_score = -1e300;
  for (std::size_t i = 0; i < question.choices.size(); ++i) {
    const double score = by_forward(composition, question.context, question.choices[i]) /
                         (normalised ? static_cast<double>(question.choice_bytes[i]) : 1.0);
    if (score > best_score) best = i, best_score = score;
  }
  return best;
}

ChoiceSet quiz() {
  std::string lines;
  const char* const words[] = {"rain", "a very long stone", "the moon", "x", "sand and salt"};
  for (int i = 0; i < 24; ++i)
    lines += "{\"question\": \"What is number " + std::to_string(i) + "?\", \"choices\": [\"" + words[i % 5] +
             "\", \"" + words[(i + 2) % 5] + "\", \"" + words[(i + 3) % 5] +
             "\"], \"answer\": " + std::to_string(i % 3) + "}\n";
  return {"quiz", "", parse_choices(lines, "quiz.jsonl")};
}

TEST_CASE("accuracies are those of the forward path's likelihoods, plain and by bytes, arm by arm") {
  const Tiny tiny;
  const auto composition = tiny.compose({causal("one"), token("two")}, {"top_k", 2, 1.0, "token"}, 0.2);
  const auto base = tiny.compose({});
  const ChoiceSet set = quiz();
  const ChoiceScore out = score_choices(*composition, {}, set, {});
  CHECK(out.questions == 24);
  CHECK(out.chance == Approx(1.0 / 3));
  std::map<std::string, ChoiceArm> arms;
  for (const ChoiceArm& arm : out.arms) arms.insert({arm.arm, arm});
  CHECK(arms.size() == 4);
  for (const auto& [name, by] : {std::pair{std::string("base"), base.get()}, {"composed", composition.get()}}) {
    double plain = 0, normalised = 0;
    for (const ChoiceQuestion& question : set.questions) {
      plain += likeliest(*by, question, false) == question.answer;
      normalised += likeliest(*by, question, true) == question.answer;
    }
    CHECK(arms.at(name).plain.share == Approx(plain / 24));
    CHECK(arms.at(name).normalised.share == Approx(normalised / 24));
  }
  CHECK(arms.at("base").plain.versus_base.mean == 0.0);
  CHECK(arms.at("composed").plain.low < arms.at("composed").plain.share);
}

TEST_CASE("a question longer than the model's context is refused, by its number") {
  const Tiny tiny; // a context of 128
  const auto composition = tiny.compose({});
  ChoiceSet set = quiz();
  set.questions[6].context += std::string(200, 'x');
  try {
    (void)score_choices(*composition, {}, set, {});
    FAIL("it was scored");
  } catch (const Error& error) {
    CHECK(error.code == Code::usage);
    CHECK_THAT(error.what(), Catch::Contains("quiz, question 7") && Catch::Contains("128"));
  }
}

} // namespace
} // namespace tenon::test
