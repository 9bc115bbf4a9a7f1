#include "host/report/report.hpp"

#include "tests/host/report/pages.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

using Catch::Matchers::Contains;

std::size_t count_of(const std::string& text, const std::string& word) {
  std::size_t count = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

TEST_CASE("a report holds every section, and links to each") {
  const std::string page = ReportedEvaluation().page();
  for (const std::string id :
       {"gains", "claims", "routing", "choices", "passages", "training", "verdicts", "lineage"}) {
    INFO(id);
    CHECK(count_of(page, "<section id=\"" + id + "\"") == 1);
    CHECK(count_of(page, "<a href=\"#" + id + "\"") == 1);
  }
  CHECK_THAT(page, Contains("On the base") && Contains("Replacing the base") && Contains("only compared with"));
  CHECK_THAT(page, Contains("41.0k")); // training tokens
  CHECK(count_of(page, "class=\"passage\"") == 3);
}

TEST_CASE("strangers' names and texts are text in a report, never markup") {
  const std::string page = ReportedEvaluation().page();
  CHECK(count_of(page, "<img") == 0);
  CHECK(count_of(page, "</script>") == 2); // the data's end and the script's
  CHECK_THAT(page, Contains("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;"));
}

TEST_CASE("a report fetches nothing") {
  const std::string page = ReportedEvaluation().page();
  for (const char* word : {"http://", "https://", "url(", "@import", "src="}) {
    INFO(word);
    CHECK(count_of(page, word) == (std::string(word) == "src=" ? count_of(page, "src=x") : 0));
  }
}

TEST_CASE("a report of a model alone has what there is to say, and no more") {
  const Tiny tiny;
  const auto composition = tiny.compose({});
  const std::vector<std::vector<std::int32_t>> documents = {tokens("text", 100)};
  write_shard(tiny.scratch.path() / "t.tokens", documents, tiny.model->tokenizer().vocab_size(),
              tiny.model->tokenizer().digest());
  EvaluationOptions options;
  options.sequence_length = 16;
  const Evaluation evaluation =
      evaluate(*composition, {{{"text", "", Shard::open(tiny.scratch.path() / "t.tokens")}}, {}, {}}, options);
  const std::string page = report_page({"tiny", "", evaluation});
  CHECK(count_of(page, "<section id=\"gains\"") == 1);
  for (const char* id : {"claims", "routing", "choices", "passages", "training", "verdicts", "lineage"})
    CHECK(count_of(page, std::string("<section id=\"") + id) == 0);
}

} // namespace
} // namespace tenon::test
