#include "host/formats/corpus_text.hpp"
#include "registry/base/json.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

namespace tenon {
namespace {

// One table, so that what is written is what is read.
constexpr std::pair<const char*, std::int64_t CorpusReport::*> kCounts[] = {
    {"files", &CorpusReport::files},
    {"skipped_files", &CorpusReport::skipped_files},
    {"records", &CorpusReport::records},
    {"duplicates", &CorpusReport::duplicates},
    {"text_bytes", &CorpusReport::text_bytes},
    {"train_documents", &CorpusReport::train_documents},
    {"held_out_documents", &CorpusReport::held_out_documents},
    {"train_tokens", &CorpusReport::train_tokens},
    {"held_out_tokens", &CorpusReport::held_out_tokens},
    {"train_blocks", &CorpusReport::train_blocks},
    {"held_out_blocks", &CorpusReport::held_out_blocks}};

constexpr std::pair<const char*, std::int64_t CorpusReport::*> kDialogueCounts[] = {
    {"unanswered", &CorpusReport::unanswered},
    {"train_answer_tokens", &CorpusReport::train_answer_tokens},
    {"held_out_answer_tokens", &CorpusReport::held_out_answer_tokens}};

} // namespace

json::object to_json(const CorpusReport& report) {
  json::object object;
  for (const auto& [name, member] : kCounts) object.emplace(name, report.*member);
  if (report.dialogues) {
    object.emplace("dialogues", true);
    for (const auto& [name, member] : kDialogueCounts) object.emplace(name, report.*member);
  }
  object.emplace("cut", report.cut);
  object.emplace("overlap_13gram", report.overlap_13gram);
  return object;
}

CorpusReport report_from_json(const JsonReader& reader) {
  CorpusReport report;
  for (const auto& [name, member] : kCounts) report.*member = reader.at(name).integer();
  report.dialogues = reader.boolean("dialogues", false);
  if (report.dialogues)
    for (const auto& [name, member] : kDialogueCounts) report.*member = reader.at(name).integer();
  report.cut = reader.at("cut").boolean();
  report.overlap_13gram = reader.at("overlap_13gram").number();
  return report;
}

std::string describe(const CorpusReport& report) {
  std::string line =
      fmt::format("{} {} from {} files", report.records, report.dialogues ? "dialogues" : "records", report.files);
  if (report.unanswered > 0) line += fmt::format(", {} without an answer left out", report.unanswered);
  if (report.duplicates > 0) line += fmt::format(", {} duplicates left out", report.duplicates);
  if (report.skipped_files > 0)
    line +=
        fmt::format(", {} files that are not {} left out", report.skipped_files, report.dialogues ? "*.jsonl" : "text");
  if (report.cut)
    line += report.dialogues ? ", those longer than a block cut into pieces" : ", long records cut into pieces";
  const bool split = report.held_out_tokens > 0;
  line += fmt::format("; {} tokens{}", report.train_tokens, split ? " to train on" : "");
  if (report.dialogues) line += fmt::format(" ({} of answers)", report.train_answer_tokens);
  if (!split) return line;
  return line + fmt::format(", {} held out ({} blocks; {:.1f}% of their 13-grams are in the training text)",
                            report.held_out_tokens, report.held_out_blocks, 100 * report.overlap_13gram);
}

} // namespace tenon
