#include "host/cli/generation.hpp"

#include "host/cli/numbers.hpp"
#include "host/cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

namespace tenon {
namespace {

// Through links, to the file that they stand for.
std::filesystem::path saved_at(const std::filesystem::path& to) {
  std::filesystem::path path = to;
  std::error_code ignored;
  for (int links = 0; links < 8 && std::filesystem::is_symlink(path, ignored); ++links)
    path = path.parent_path() / std::filesystem::read_symlink(path, ignored);
  return path;
}

} // namespace

void add_generation_options(CLI::App& command, GenerationSettings& settings) {
  command.add_option("--max-tokens", settings.max_tokens, "Most tokens to write")
      ->check(from_one())
      ->capture_default_str();
  command.add_option("--temperature", settings.sampling.temperature, "0: the likeliest token always")
      ->capture_default_str();
  command.add_option("--top-k", settings.sampling.top_k, "Draw from this many of the likeliest tokens; 0: all")
      ->capture_default_str();
  command.add_option("--top-p", settings.sampling.top_p, "Draw from the likeliest tokens that together reach this")
      ->capture_default_str();
  command.add_option("--seed", settings.sampling.seed, "The same seed draws the same text")
      ->check(from_zero())
      ->capture_default_str();
  command.add_flag("--greedy", settings.greedy, "As --temperature 0");
  command.add_option("--stop", settings.stops, "Text that ends the answer; may be given several times")
      ->type_name("TEXT")
      ->take_all()
      ->allow_extra_args(false);
  command.add_option("--context", settings.context, "Most tokens of prompt and answer; 0: what the model was made for")
      ->check(from_zero());
}

void say_context(const Model& model, const GenerationSettings& settings, Output& out) {
  if (const std::int64_t context = context_of(model, settings.context); settings.context > context)
    out.note(fmt::format("found --context {}, this model learned {} positions: the context is {}", settings.context,
                         model.shape().positions, context));
}

GenerateOptions GenerationSettings::options() const {
  GenerateOptions out;
  out.max_tokens = max_tokens;
  out.sampling = sampling;
  if (greedy) out.sampling.temperature = 0;
  out.stops = stops;
  out.interrupted = [] { return interrupted(); };
  return out;
}

SessionOptions GenerationSettings::session(Output& to) const {
  SessionOptions out;
  out.context = context;
  out.interrupted = [] { return interrupted(); };
  out.progress = [&to, bar = std::make_shared<std::optional<Progress>>()](std::int64_t done, std::int64_t total) {
    if (!*bar) bar->emplace(to, "reading", total, "tokens");
    (*bar)->update(done);
    if (done == total) (*bar)->close(), bar->reset();
  };
  return out;
}

SavedSession open_session(Composition& composition, const GenerationSettings& settings, const SessionFiles& files,
                          Output& out) {
  say_context(composition.model(), settings, out);
  if (files.from.empty()) return {Session(composition, settings.session(out)), {}};
  return restore_session(composition, std::filesystem::path(files.from), settings.session(out));
}

void SessionFiles::check() const {
  if (to.empty()) return;
  const std::filesystem::path path = saved_at(to), folder = path.has_parent_path() ? path.parent_path() : ".";
  const auto refuse = [&](Code code, const std::string& problem, const char* remedy) {
    throw Error(code, to, problem, remedy);
  };
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored))
    refuse(Code::not_found, "there is no folder " + folder.string(), "make it first, or save elsewhere");
  if (::access(folder.c_str(), W_OK) != 0)
    refuse(Code::environment, folder.string() + ": " + std::strerror(errno), "save elsewhere");
  if (!std::filesystem::exists(path, ignored)) return;
  if (!std::filesystem::is_regular_file(path, ignored))
    refuse(Code::usage, "is no regular file", "save to another file");
  if (std::filesystem::file_size(path, ignored) > 0 && !is_session(path))
    refuse(Code::usage, "holds something that is no session", "save to another file, or remove this one");
}

void keep_session(const Session& session, const SessionFiles& files, const json::object& note, Output& out) {
  if (files.to.empty()) return;
  save_session(session, saved_at(files.to), note);
  out.note(fmt::format("saved {} tokens to {}", session.tokens().size(), files.to));
}

std::size_t strongest(const Session& session, std::size_t position) {
  const std::vector<float> w = session.strengths(position);
  return static_cast<std::size_t>(std::max_element(w.begin(), w.end()) - w.begin());
}

std::vector<ExpertShare> expert_shares(const Session& session, std::size_t first, std::size_t last) {
  std::vector<ExpertShare> out;
  Composition& composition = session.composition();
  for (std::size_t slot = 0; slot < composition.packages().size(); ++slot)
    out.push_back({composition.packages()[slot].entry.name, 0, 0.0, composition.experts().work[slot].skipped()});
  for (std::size_t position = first; position < last; ++position) {
    const std::vector<float> w = session.strengths(position);
    for (std::size_t slot = 0; slot < w.size(); ++slot)
      out[slot].mean_strength += w[slot] / static_cast<double>(last - first);
    ++out[strongest(session, position)].strongest;
  }
  return out;
}

json::array masked_json(Composition& composition) {
  json::array out;
  const auto& packages = composition.packages();
  for (std::size_t slot = 0; slot < packages.size(); ++slot)
    if (composition.experts().masked(slot)) out.emplace_back(packages[slot].entry.title());
  return out;
}

std::string speed_text(const Session& session) {
  const Speed& speed = session.speed();
  std::string text;
  const auto add = [&](const char* what, std::int64_t tokens, double rate) {
    if (tokens > 0) text += fmt::format("{}{} {} at {:.1f} tokens/s", text.empty() ? "" : ", ", what, tokens, rate);
  };
  add("read", speed.prefill_tokens, speed.prefill_rate());
  add("wrote", speed.decode_tokens,
      speed.decode_rate()); // a prompt of one token counts here: it costs what writing does
  if (session.composition().experts().size() > 1)
    text +=
        fmt::format("; {:.0f}% of expert work skipped", 100 * session.composition().experts().total_work().skipped());
  return text;
}

json::object speed_json(const Session& session) {
  const Speed& speed = session.speed();
  return {{"prefill_tokens", speed.prefill_tokens},
          {"prefill_tokens_per_second", speed.prefill_rate()},
          {"decode_tokens", speed.decode_tokens},
          {"decode_tokens_per_second", speed.decode_rate()},
          {"work_skipped", session.composition().experts().total_work().skipped()}};
}

} // namespace tenon
