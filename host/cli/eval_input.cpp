// What tenon eval measures on, from the words of the command line.
#include "host/cli/eval_input.hpp"

#include "host/cli/progress.hpp"
#include "host/formats/corpus.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>

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
    throw Error(Code::usage, "eval",
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
    throw Error(Code::usage, "eval",
                fmt::format("--data {}: found the role \"{}\", which is no expert of this composition", text, out.role),
                "name one of its experts, or general");
  return out;
}

// The held-out text that a training left in its folder.
fs::path held_out_shard(const fs::path& folder) {
  for (const fs::path& path : {folder / "held_out.tokens", folder / ".run" / "held_out.tokens"})
    if (fs::exists(path)) return path;
  throw Error(Code::not_found, "eval",
              folder.string() + " holds no held_out.tokens, need the folder of a finished training",
              "give the folder that tenon expert train wrote");
}

EvaluationCorpus open_corpus(const DataArgument& data, const Composition& composition, const EvalSettings& settings,
                             Context& context) {
  const fs::path place = data.held_out ? held_out_shard(data.place) : fs::path(data.place);
  if (place.extension() == ".tokens") return {data.name, data.role, Shard::open(place)};
  Progress progress(context.out, "reading " + data.name, 0, "bytes");
  CorpusOptions options;
  options.sequence_length = settings.options.sequence_length;
  options.field = settings.field;
  const CorpusWhole whole = prepare_whole(
      {place}, composition.model().tokenizer(), options, context.home.cache() / "corpora",
      [&](std::string_view, std::uint64_t done, std::uint64_t) { progress.update(static_cast<std::int64_t>(done)); });
  return {data.name, data.role, whole.tokens};
}

// "lora=plain@^1": what it is called here, and which expert it is.
VersusExpert open_versus(const std::string& text, const Composition& composition, const Loader& loader) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos || equals + 1 == text.size())
    throw Error(Code::usage, "eval", "found --versus " + text + ", need NAME=EXPERT", "as in --versus lora=plain@^1");
  const Entry entry = loader.registry().resolve(PackageRequest::parse(text.substr(equals + 1)), Kind::expert);
  return {text.substr(0, equals), loader.expert(entry, composition.model(), &composition.packages().front())};
}

} // namespace

void add_eval_input_options(CLI::App& command, EvalSettings& settings) {
  command
      .add_option(
          "--data", settings.data,
          "A corpus: NAME=PATH (text, folder, JSONL or .tokens), or NAME=held-out:DIR for the held-out text of a "
          "training; then :EXPERT for whose domain it is, or :general")
      ->type_name("NAME=PATH")
      ->take_all()
      ->allow_extra_args(false);
  command
      .add_option("--choices", settings.choices,
                  "Multiple-choice questions, one JSON object a line: {\"question\": \"...\", \"choices\": [\"...\", "
                  "\"...\"], \"answer\": 0}; answer counts from 0. With \"context\" for \"question\", context and "
                  "choice are joined as they stand, without \"Question:\" and \"Answer:\"")
      ->type_name("FILE")
      ->take_all()
      ->allow_extra_args(false);
  command
      .add_option(
          "--versus", settings.versus,
          "An expert that is no part of the composition, scored alone beside its parts: a plain adapter of equal "
          "size, one expert trained on everything; NAME=EXPERT or NAME=EXPERT@RANGE")
      ->type_name("NAME=EXPERT")
      ->take_all()
      ->allow_extra_args(false);
  command.add_option("--field", settings.field, "The text field of JSONL lines")->capture_default_str();
}

EvaluationInput open_eval_input(const EvalSettings& settings, const Composition& composition, Context& context) {
  EvaluationInput input;
  std::vector<DataArgument> data;
  for (const std::string& text : settings.data) data.push_back(parse_data(text, composition));
  for (const std::string& path : settings.choices) input.choices.push_back(read_choices(path));
  const Loader loader = make_loader(settings.opening, context);
  for (const std::string& text : settings.versus) input.versus.push_back(open_versus(text, composition, loader));
  for (const DataArgument& one : data) input.corpora.push_back(open_corpus(one, composition, settings, context));
  return input;
}

} // namespace tenon
