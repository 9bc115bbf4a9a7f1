#include "host/formats/corpus_text.hpp"

#include "host/formats/dialogue.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/json.hpp"
#include "registry/base/sha256.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <boost/json.hpp>
#include <unordered_set>

namespace tenon {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLargestFile = std::size_t{8} << 30;
// Text in an 8-bit encoding has a few bytes that are no UTF-8; a binary file has many.
constexpr double kInvalidShare = 0.1;

struct Source {
  fs::path path;
  bool named; // by the caller, not found in a directory
};

bool hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

void walk(const fs::path& directory, std::vector<Source>& sources) {
  std::vector<fs::directory_entry> entries;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (!hidden(it->path())) entries.push_back(*it);
  }
  if (error) {
    throw Error(Code::environment, "corpus", fmt::format("{}: {}", directory.string(), error.message()),
                "give yourself permission to read it");
  }
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.path().native() < b.path().native(); });
  for (const fs::directory_entry& entry : entries) {
    // A linked directory could lead back here.
    if (entry.is_directory(error) && !entry.is_symlink(error)) {
      walk(entry.path(), sources);
    } else if (entry.is_regular_file(error)) {
      sources.push_back({entry.path(), false});
    }
  }
}

std::vector<Source> find_sources(const std::vector<fs::path>& inputs) {
  std::vector<Source> sources;
  for (const fs::path& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (!fs::exists(status)) {
      throw Error(Code::not_found, "corpus", input.string() + ": there is no such file or directory",
                  "check the path of the text");
    }
    if (fs::is_directory(status)) {
      walk(input, sources);
    } else if (fs::is_regular_file(status)) {
      sources.push_back({input, true});
    } else {
      throw Error(Code::usage, "corpus", input.string() + ": found neither a file nor a directory",
                  "copy the text to a file first");
    }
  }
  return sources;
}

std::string name_of(const std::vector<fs::path>& inputs) {
  if (inputs.empty()) throw Error(Code::usage, "corpus", "found no input, need a file or a directory of text");
  return inputs.front().string() + (inputs.size() > 1 ? fmt::format(" and {} more", inputs.size() - 1) : "");
}

bool blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

std::string members_of(const json::value& line) {
  if (!line.is_object()) return "no object";
  std::string names;
  for (const auto& member : line.as_object()) {
    if (names.size() < 200) names += (names.empty() ? "" : ", ") + std::string(member.key());
  }
  return names.empty() ? "no fields" : "the fields " + names;
}

constexpr const char* kNameField =
    "name the field that holds it: --set data.field=NAME in training, --field NAME elsewhere";

json::value parse_line(std::string_view line, const std::string& where) {
  try {
    return parse_json(line, where);
  } catch (const Error& error) {
    throw Error(Code::usage, "corpus", fmt::format("{}: {}", where, error.message), "need one JSON object a line");
  }
}

const json::value& member_of(const json::value& line, const std::string& where, const std::string& field) {
  const json::value* member = line.is_object() ? line.as_object().if_contains(field) : nullptr;
  if (member) return *member;
  const bool dialogue = field == "text" && line.is_object() && line.as_object().contains("messages");
  throw Error(Code::usage, "corpus", fmt::format("{}: found {}, need \"{}\"", where, members_of(line), field),
              dialogue ? "for dialogues: --set data.format=chat in training, --format chat elsewhere" : kNameField);
}

std::string text_of_line(std::string_view line, const std::string& where, const std::string& field) {
  const json::value value = parse_line(line, where);
  const json::value& text = member_of(value, where, field);
  if (!text.is_string())
    throw Error(Code::usage, "corpus", fmt::format("{}: \"{}\" is no string", where, field), kNameField);
  return std::string(text.as_string());
}

class Reader {
 public:
  Reader(CorpusText& out, const CorpusOptions& options)
      : out_(out),
        dialogues_(options.chat),
        field_(!options.field.empty() ? options.field
               : dialogues_           ? "messages"
                                      : "text") {
    out_.report.dialogues = dialogues_;
  }

  void read(const Source& source) {
    const bool lines = source.path.extension() == ".jsonl";
    std::string bytes = read_file(source.path, kLargestFile);
    const std::string why = dialogues_ && !lines ? "a file that is no *.jsonl" : why_not_text(bytes);
    if (!why.empty()) {
      if (source.named) refuse_binary(source.path.string(), why);
      if (first_skipped_.empty()) first_skipped_ = fmt::format("{}: {}", source.path.string(), why);
      ++out_.report.skipped_files;
      return;
    }
    ++out_.report.files;
    if (lines) {
      read_lines(bytes, source.path.string());
    } else {
      add(std::move(bytes));
    }
  }

  void refuse_if_empty() const {
    if (!out_.records.empty()) return;
    const std::string skipped = out_.report.skipped_files == 0 ? ""
                                                               : fmt::format(" and {} that are not text (first {})",
                                                                             out_.report.skipped_files, first_skipped_);
    if (dialogues_)
      throw Error(Code::usage, "corpus",
                  fmt::format("{}: found {} files of dialogues ({} dialogues without an answer), need dialogues with "
                              "answers in *.jsonl",
                              out_.inputs, out_.report.files, out_.report.unanswered),
                  "give another directory or file");
    throw Error(Code::usage, "corpus",
                fmt::format("{}: found {} text files{}, no text in them, need text files or *.jsonl", out_.inputs,
                            out_.report.files, skipped),
                "give another directory or file");
  }

 private:
  [[noreturn]] void refuse_binary(const std::string& path, const std::string& why) const {
    if (dialogues_)
      throw Error(Code::usage, "corpus", fmt::format("{}: found {}, need dialogues in *.jsonl", path, why),
                  "give one JSON object a line, in a file named *.jsonl");
    throw Error(Code::usage, "corpus", fmt::format("{}: found {}, need text in UTF-8", path, why),
                "convert it to text first (iconv -t UTF-8, pdftotext, ...)");
  }

  void read_lines(std::string_view bytes, const std::string& path) {
    for (std::size_t number = 1; !bytes.empty(); ++number) {
      const std::size_t end = std::min(bytes.find('\n'), bytes.size());
      const std::string_view line = bytes.substr(0, end);
      bytes.remove_prefix(std::min(end + 1, bytes.size()));
      if (!blank(line)) add_line(line, fmt::format("{}:{}", path, number));
    }
  }

  void add_line(std::string_view line, const std::string& where) {
    if (!dialogues_) return add(text_of_line(line, where, field_));
    const json::value value = parse_line(line, where);
    const std::vector<ChatMessage> dialogue = read_dialogue(member_of(value, where, field_), where);
    if (has_answer(dialogue))
      add(dialogue_text(dialogue));
    else
      ++out_.report.unanswered;
  }

  void add(std::string text) {
    if (blank(text)) return;
    std::string hash = sha256(text);
    if (!seen_.insert(hash).second) {
      ++out_.report.duplicates;
      return;
    }
    ++out_.report.records;
    out_.report.text_bytes += static_cast<std::int64_t>(text.size());
    out_.records.push_back({std::move(text), std::move(hash)});
  }

  CorpusText& out_;
  bool dialogues_;
  std::string field_;
  std::unordered_set<std::string> seen_;
  std::string first_skipped_;
};

} // namespace

std::string why_not_text(std::string_view bytes) {
  if (const std::size_t nul = bytes.find('\0'); nul != std::string_view::npos) {
    return fmt::format("a NUL byte at {}", nul);
  }
  const std::size_t invalid = utf8_invalid_bytes(bytes);
  if (static_cast<double>(invalid) <= kInvalidShare * static_cast<double>(bytes.size())) return "";
  return fmt::format("{} of {} bytes that are no UTF-8", invalid, bytes.size());
}

CorpusText read_corpus(const std::vector<fs::path>& inputs, const CorpusOptions& options,
                       const CorpusProgress& progress) {
  CorpusText text;
  text.inputs = name_of(inputs);
  const std::vector<Source> sources = find_sources(inputs);
  std::uint64_t done = 0, total = 0;
  std::error_code ignored;
  for (const Source& source : sources) total += fs::file_size(source.path, ignored);
  Reader reader(text, options);
  for (const Source& source : sources) {
    reader.read(source);
    done += fs::file_size(source.path, ignored);
    if (progress) progress("read", std::min(done, total), total);
  }
  reader.refuse_if_empty();
  Sha256 digest;
  for (const CorpusRecord& record : text.records) digest.field(record.hash);
  text.digest = digest.hex();
  return text;
}

} // namespace tenon
