// What tenon eval measures on, from the words of the command line.
#include "host/cli/eval_input.hpp"

#include "registry/base/error.hpp"

namespace tenon {
namespace {

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
  add_corpus_options(command, settings.corpora);
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
  command
      .add_option("--replay", settings.replay,
                  "A file of tenon trace, of this composition's experts and these texts: its strengths as one more arm")
      ->type_name("FILE");
}

EvaluationInput open_eval_input(const EvalSettings& settings, const Composition& composition, Context& context) {
  EvaluationInput input;
  for (const std::string& path : settings.choices) input.choices.push_back(read_choices(path));
  const Loader loader = make_loader(settings.opening, context);
  for (const std::string& text : settings.versus) input.versus.push_back(open_versus(text, composition, loader));
  input.corpora = open_corpora(settings.corpora, settings.options.sequence_length, composition, context);
  return input;
}

} // namespace tenon
