#include "host/formats/splitter.hpp"

#include "registry/base/error.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace tenon {
namespace {

// White space as Unicode's property has it. PCRE2's own \s would add U+180E, which the reference does not.
#define SPACES R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"

// The pattern of GPT-2; possessive where giving back could never help.
constexpr const char* kGpt2 = R"('(?:s|t|re|ve|m|ll|d)| ?\p{L}++| ?\p{N}++| ?[^\p{L}\p{N})" SPACES
                              R"(]++|[)" SPACES R"(]+(?![^)" SPACES R"(])|[)" SPACES R"(]++)";

// Each numeral first stands alone, and what lies between is split as GPT-2 does; in one pattern: white space before a
// numeral ends there, so its last character is not held back.
constexpr const char* kSmollm = R"('(?:s|t|re|ve|m|ll|d)| ?\p{L}++|\p{N}| ?[^\p{L}\p{N})" SPACES
                                R"(]++|[)" SPACES R"(]+(?![^\p{N})" SPACES R"(])|[)" SPACES R"(]++)";

const char* pattern_of(std::string_view name) {
  if (name == "gpt2") return kGpt2;
  if (name == "smollm") return kSmollm;
  std::string known;
  for (const std::string& each : Splitter::known()) known += (known.empty() ? "" : ", ") + each;
  throw Error(Code::incompatible, "tokenizer",
              "found the splitter \"" + std::string(name) + "\", need one of: " + known,
              "use a model with one of these tokenizers");
}

std::string pcre_message(int code) {
  PCRE2_UCHAR text[160];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

} // namespace

struct Splitter::Pattern {
  explicit Pattern(const char* source) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at,
                         nullptr);
    if (!code) throw Error(Code::bug, "splitter", "pattern: " + pcre_message(error) + " at " + std::to_string(at));
    // Only faster: where there is no compiler for this processor, matching interprets.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  }
  Pattern(const Pattern&) = delete;
  ~Pattern() { pcre2_code_free(code); }

  pcre2_code* code = nullptr;
};

Splitter::Splitter(std::string_view name) : pattern_(std::make_shared<const Pattern>(pattern_of(name))) {}

const std::vector<std::string>& Splitter::known() {
  static const std::vector<std::string> names = {"gpt2", "smollm"};
  return names;
}

std::string_view Splitter::gpt2_pattern() {
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
}

void Splitter::split(std::string_view text, std::vector<std::string_view>& words) const {
  const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create(1, nullptr));
  if (!match) throw Error(Code::environment, "splitter", "no memory for a match");
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::size_t at = 0;
  while (at < text.size()) {
    // The text is known to be valid: checking it again for every word would make this quadratic.
    const int found = pcre2_match(pattern_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED,
                                  match.get(), nullptr);
    if (found < 1) {
      throw Error(Code::bug, "splitter", "no word at byte " + std::to_string(at) + ": " + pcre_message(found));
    }
    const std::size_t end = pcre2_get_ovector_pointer(match.get())[1];
    if (end <= at) throw Error(Code::bug, "splitter", "an empty word at byte " + std::to_string(at));
    words.push_back(text.substr(at, end - at));
    at = end;
  }
}

} // namespace tenon
