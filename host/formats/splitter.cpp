#include "host/formats/splitter.hpp"

#include "registry/base/error.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace tenon {
namespace {

// White space as Unicode's property has it. PCRE2's own \s would add U+180E, which the reference does not.
#define SPACES R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"

// Letters and numerals of Unicode 16, which the reference has: PCRE2 10.42 stands at Unicode 14, and ids must not
// depend on which PCRE2 is installed. The lists are what came after 14.
#define LETTERS                                                                                                         \
  R"(\p{L}\x{1c89}\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65}\x{10d6f}-\x{10d85})" \
  R"(\x{10ec2}-\x{10ec4}\x{1123f}\x{11240}\x{11380}-\x{11389}\x{1138b}\x{1138e}\x{11390}-\x{113b5}\x{113b7})"           \
  R"(\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f})"                    \
  R"(\x{13441}-\x{13446}\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155})"          \
  R"(\x{1df25}-\x{1df2a}\x{1e030}-\x{1e06d}\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739})"                   \
  R"(\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})"
#define NUMERALS                                                                                            \
  R"(\p{N}\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59}\x{16130}-\x{16139})" \
  R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3}\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})"

#define CONTRACTION_OR_LETTERS "'(?:s|t|re|ve|m|ll|d)| ?[" LETTERS "]++"
#define OTHERS " ?[^" LETTERS NUMERALS SPACES "]++"

// GPT-2's pattern; possessive where giving back could never help.
constexpr const char* kGpt2 =
    CONTRACTION_OR_LETTERS "| ?[" NUMERALS "]++|" OTHERS "|[" SPACES "]+(?![^" SPACES "])|[" SPACES "]++";

// Each numeral first stands alone, and what lies between is split as GPT-2 does; in one pattern: white space before a
// numeral ends there, so its last character is not held back.
constexpr const char* kSmollm =
    CONTRACTION_OR_LETTERS "|[" NUMERALS "]|" OTHERS "|[" SPACES "]+(?![^" NUMERALS SPACES "])|[" SPACES "]++";

// Llama 3's pattern, and Qwen2's, which takes each numeral alone. A word may lead with one character that is neither
// letter, numeral nor end of line; white space up to the last end of line is a word.
#define LINE_ENDS R"(\r\n)"
#define MODERN(COUNT)                                                                                              \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^" LINE_ENDS LETTERS NUMERALS "]?[" LETTERS "]++|[" NUMERALS "]" COUNT "|" OTHERS \
  "[" LINE_ENDS "]*+|[" SPACES "]*[" LINE_ENDS "]+|[" SPACES "]+(?![^" SPACES "])|[" SPACES "]++"
constexpr const char* kLlama3 = MODERN("{1,3}+");
constexpr const char* kQwen2 = MODERN("");

// A splitter's name, our pattern, and the pattern as it stands in Hugging Face files; empty where none does.
struct Known {
  std::string_view name;
  const char* pattern;
  std::string_view written;
};
constexpr Known kKnown[] = {
    {"gpt2", kGpt2, R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {"smollm", kSmollm, ""},
    {"llama3", kLlama3,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2", kQwen2,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)"}};

const char* pattern_of(std::string_view name) {
  std::string names;
  for (const Known& known : kKnown) {
    if (name == known.name) return known.pattern;
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  throw Error(Code::incompatible, "tokenizer",
              "found the splitter \"" + std::string(name) + "\", need one of: " + names,
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
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                         &at, nullptr);
    if (!code) throw Error(Code::bug, "splitter", "pattern: " + pcre_message(error) + " at " + std::to_string(at));
    // Only faster: where there is no compiler for this processor, matching interprets.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  }
  Pattern(const Pattern&) = delete;
  ~Pattern() { pcre2_code_free(code); }

  pcre2_code* code = nullptr;
};

Splitter::Splitter(std::string_view name) : pattern_(std::make_shared<const Pattern>(pattern_of(name))) {}

std::optional<std::string_view> Splitter::of_written(std::string_view pattern) {
  for (const Known& known : kKnown) {
    if (!pattern.empty() && pattern == known.written) return known.name;
  }
  return std::nullopt;
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
