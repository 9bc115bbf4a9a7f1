#include "host/cli/corpora.hpp"

#include "host/cli/progress.hpp"
#include "host/formats/corpus.hpp"
#include "registry/base/error.hpp"
#include "registry/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace tenon {
namespace {

namespace fs = std::filesystem;

// "setmm=held-out:runs/setmm:setmm": name, where the text is, whose domain it is.
struct DataArgument {
  std::string name, place, role;
  bool held_out = false; // place is a training's folder, and its held-out text is meant
};

bool is_role(const Composition& composition, const std::string& word) {
  const auto& packages = composition.packages();
  return word == "general" || std::any_of(packages.begin() + 1, packages.end(),
                                          [&](const ExpertPackage& package) { return package.entry.name == word; });
}

DataArgument parse_data(const std::string& text, const Composition& composition) {
  DataArgument out;
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos || equals + 1 == text.size())
    throw Error(Code::usage, "data",
                "found --data " + text + ", need NAME=PATH, NAME=PATH:EXPERT or NAME=PATH:general");
  out.name = text.substr(0, equals);
  out.place = text.substr(equals + 1);
  const std::string prefix = "held-out:";
  if (out.place.rfind(prefix, 0) == 0) {
    out.held_out = true;
    out.place.erase(0, prefix.size());
  }
  const std::size_t colon = out.place.rfind(':');
  if (colon == std::string::npos || fs::exists(out.place)) return out;
  out.role = out.place.substr(colon + 1);
  out.place.erase(colon);
  if (!is_role(composition, out.role))
    throw Error(Code::usage, "data",
                fmt::format("--data {}: found the role \"{}\", which is no expert of this composition", text, out.role),
                "name one of its experts, or general");
  return out;
}

// The held-out text that a training left in its folder.
fs::path held_out_shard(const fs::path& folder) {
  for (const fs::path& path : {folder / "held_out.tokens", folder / ".run" / "held_out.tokens"})
    if (fs::exists(path)) return path;
  throw Error(Code::not_found, "data",
              folder.string() + " holds no held_out.tokens, need the folder of a finished training",
              "give the folder that tenon expert train wrote");
}

// The text that the expert beside it was measured on, where it says so.
Shard open_held_out(const fs::path& folder) {
  Shard shard = Shard::open(held_out_shard(folder));
  const fs::path manifest = folder / "expert.json";
  if (!fs::exists(manifest)) return shard;
  const json::array evidence = ExpertManifest::parse(read_json(manifest), manifest.string()).evidence;
  const auto tells = [](const json::value& one) { return one.as_object().contains("data"); };
  const auto same = [&](const json::value& one) { return tells(one) && one.at("data") == json::value(shard.digest()); };
  if (std::any_of(evidence.begin(), evidence.end(), tells) && std::none_of(evidence.begin(), evidence.end(), same))
    throw Error(Code::integrity, "data",
                folder.string() + ": its held_out.tokens is another text than the one in expert.json's evidence",
                "train again in a folder of its own, or evaluate on the text itself");
  return shard;
}

EvaluationCorpus open_corpus(const DataArgument& data, const Composition& composition, const CorpusSettings& settings,
                             std::int64_t sequence_length, Context& context) {
  if (data.held_out) return {data.name, data.role, open_held_out(data.place)};
  const fs::path place = data.place;
  if (place.extension() == ".tokens") return {data.name, data.role, Shard::open(place)};
  std::optional<Progress> progress(std::in_place, context.out, "reading " + data.name, 0, "bytes");
  CorpusOptions options;
  options.sequence_length = sequence_length;
  options.field = settings.field;
  if (settings.format == "chat")
    options.chat = ChatTemplate::choose(settings.chat_template, composition.model().tokenizer());
  const CorpusWhole whole = prepare_whole(
      {place}, composition.model().tokenizer(), options, context.home.cache() / "corpora",
      [&](std::string_view, std::uint64_t done, std::uint64_t) { progress->update(static_cast<std::int64_t>(done)); });
  progress.reset();
  const CorpusReport& read = whole.report;
  if (read.dialogues || read.duplicates > 0 || read.skipped_files > 0)
    context.out.note(data.name + ": " + describe(read));
  return {data.name, data.role, whole.tokens};
}

} // namespace

CLI::Option* add_corpus_options(CLI::App& command, CorpusSettings& settings) {
  command.add_option("--format", settings.format, "text, or chat: JSONL of dialogues, whose answers alone count")
      ->check(CLI::IsMember({"text", "chat"}))
      ->capture_default_str();
  command.add_option("--field", settings.field, "The field of JSONL lines; by default text, for chat messages");
  command.add_option("--template", settings.chat_template, "A chat template, in place of the model's own")
      ->type_name("NAME");
  return command
      .add_option(
          "--data", settings.data,
          "A corpus: NAME=PATH (text, folder, JSONL or .tokens), or NAME=held-out:DIR for the held-out text of a "
          "training; then :EXPERT for whose domain it is, or :general")
      ->type_name("NAME=PATH")
      ->take_all()
      ->allow_extra_args(false);
}

std::vector<EvaluationCorpus> open_corpora(const CorpusSettings& settings, std::int64_t sequence_length,
                                           const Composition& composition, Context& context) {
  if (settings.format != "chat" && !settings.chat_template.empty())
    throw Error(Code::usage, "data", "found --template " + settings.chat_template + " for text, which has none",
                "for dialogues: --format chat; for text leave it out");
  std::vector<DataArgument> data;
  for (const std::string& text : settings.data) data.push_back(parse_data(text, composition));
  std::vector<EvaluationCorpus> corpora;
  for (const DataArgument& one : data)
    corpora.push_back(open_corpus(one, composition, settings, sequence_length, context));
  return corpora;
}

} // namespace tenon
