// What a composition costs beside the base alone: four experts of the base's size, each with weights of its own,
// mapped from a file of its own, of which a position uses one (K = 1). Their rows are fitted to four real corpora, so
// that experts change as real texts do; their weights are the base's, so that nothing but the time differs. Never a
// test.
//
//   tenon_composition_bench HOME MODEL CORPORA [FORMAT] [ROUNDS]
//
//   CORPORA   a folder with general, and a folder for each of four kinds of text (.deps/corpora)
//   ROUNDS    7 unless said
//
// The text changes its kind every 96 tokens. Steps are timed one by one, the two sides in turn, token by token, so that
// a slow moment of the machine meets both. A prompt is compared with the time of the work that it computes: the base
// alone, and so many rows of the base more or less as the experts ran. Every round stands between two probes of the
// machine. Lines of JSON on standard output: two a policy, then what it costs to draw a token of the text's logits; and
// what the machine could do meanwhile.
#include "host/inference/sampling.hpp"
#include "host/inference/session.hpp"
#include "host/routing/policy.hpp"
#include "host/training/row_fit.hpp"
#include "registry/base/files.hpp"
#include "tests/bench/copies.hpp"
#include "tests/bench/machine.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace tenon {
namespace {

namespace fs = std::filesystem;
using cpu::bench::median, cpu::bench::seconds;

constexpr const char* kKinds[] = {"setmm", "services", "python", "french"};
constexpr std::int64_t kPiece = 96, kPrompt = 512, kSteps = 384, kFitted = 2048; // tokens
constexpr double kRowL2 = 0.001;                                                 // as training fits rows

std::vector<std::int32_t> tokens_of(const Tokenizer& tokenizer, const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string text;
  for (const fs::path& file : files) text += read_file(file).substr(0, 3000) + "\n\n";
  return tokenizer.encode(std::string_view(text).substr(0, 10 * 2 * kFitted));
}

at::Tensor trunk_rows(const Model& model, std::span<const std::int32_t> tokens) {
  std::vector<at::Tensor> rows;
  for (std::size_t i = 0; i + 256 <= tokens.size(); i += 256) {
    const std::vector<std::int32_t> block(tokens.begin() + static_cast<std::ptrdiff_t>(i),
                                          tokens.begin() + static_cast<std::ptrdiff_t>(i + 256));
    const Batch batch = Batch::whole(at::tensor(block, at::kInt).to(at::kLong).unsqueeze(0));
    rows.push_back(model.trunk().forward(batch).narrow(0, 1, 255));
  }
  return at::cat(rows);
}

class Bench {
 public:
  Bench(const fs::path& home, const std::string& name, const fs::path& corpora, Format format)
      : cache_(home / "cache"),
        loader_(Registry(home / "registry"), {home / "store", cache_, {}, format}),
        model_(loader_.model(loader_.registry().resolve(PackageRequest::parse(name), Kind::model))),
        format_(format_name(format)) {
    fit(corpora);
  }

  void measure(const std::string& policy, std::int64_t rounds) {
    Routing routing;
    routing.top_k = 1, routing.policy = policy, routing.average_over = 16;
    std::vector<ExpertPackage> packages = {loader_.base(*model_)};
    bench::Copies copies(loader_, *model_, cache_);
    for (std::size_t i = 0; i < rows_.size(); ++i)
      packages.push_back(copies.make(packages.front(), static_cast<std::int64_t>(i), rows_[i]));
    Composition composed(model_, std::move(packages), routing, prior(routing), {});
    Composition alone(model_, {loader_.base(*model_)}, Routing{}, 0.0, {});
    steps(composed, alone, policy, rounds);
    prompts(composed, alone, policy, rounds);
  }

  // What it costs to draw a token: of the logits that the base leaves after every token of the text.
  void draw(std::int64_t rounds) {
    Composition alone(model_, {loader_.base(*model_)}, Routing{}, 0.0, {});
    const Sampler samplers[] = {Sampler({}), Sampler({1.0, 40}), Sampler({1.0})};
    std::vector<double> medians[std::size(samplers)];
    for (std::int64_t round = 0; round <= rounds; ++round) { // the first warms up
      Session session(alone);
      std::vector<double> taken[std::size(samplers)];
      machine_.around([&] {
        for (std::size_t i = 0; i < kSteps; ++i) {
          session.append({&text_[i], 1});
          const std::span<const float> logits_V = session.logits();
          for (std::size_t turn = 0; turn < std::size(samplers); ++turn) {
            const std::size_t s = (i + turn) % std::size(samplers);
            taken[s].push_back(1e6 * seconds([&] { (void)samplers[s].sample(logits_V, i); }));
          }
        }
      });
      for (std::size_t s = 0; round > 0 && s < std::size(samplers); ++s) medians[s].push_back(median(taken[s]));
    }
    fmt::print(
        "{{\"work\": \"draw\", \"vocabulary\": {}, \"greedy_us\": {:.1f}, \"best_40_us\": {:.1f}, \"all_us\": "
        "{:.1f}}}\n",
        model_->shape().vocab, median(medians[0]), median(medians[1]), median(medians[2]));
    std::fflush(stdout);
  }
  const cpu::bench::Machine& machine() const { return machine_; }

 private:
  void fit(const fs::path& corpora) {
    const Statistics& h = model_->statistics();
    const Normalization normalization{h.mean_C, h.deviation_C};
    std::vector<std::vector<std::int32_t>> kinds = {tokens_of(model_->tokenizer(), corpora / "general")};
    const auto first_half = [](const std::vector<std::int32_t>& all) { return std::span(all).first(all.size() / 2); };
    const at::Tensor general_NC = normalization.apply(trunk_rows(*model_, first_half(kinds[0])));
    held_out_NC_ = trunk_rows(*model_, std::span(kinds[0]).subspan(kinds[0].size() / 2));
    for (const char* kind : kKinds) {
      kinds.push_back(tokens_of(model_->tokenizer(), corpora / kind));
      const at::Tensor domain_NC = normalization.apply(trunk_rows(*model_, first_half(kinds.back())));
      rows_.push_back(fit_row(domain_NC, general_NC, kRowL2).row);
    }
    // From the halves that no row was fitted to, a piece of each kind in turn.
    for (std::size_t piece = 0; text_.size() < kPrompt + kSteps; ++piece) {
      const std::vector<std::int32_t>& from = kinds[piece % kinds.size()];
      const std::size_t first = from.size() / 2 + piece / kinds.size() * kPiece;
      for (std::size_t i = first; i < first + kPiece; ++i) text_.push_back(from[i % from.size()]);
    }
  }

  double prior(const Routing& routing) const {
    const Statistics& h = model_->statistics();
    const Router router({h.mean_C, h.deviation_C}, rows_, routing, 0.0);
    std::vector<at::Tensor> read;
    for (const at::Tensor& scores_TE : router.scores(held_out_NC_).split(255))
      read.push_back(average_scores(scores_TE, routing.average_over));
    return fit_prior(at::cat(read), router);
  }

  void steps(Composition& composed, Composition& alone, const std::string& policy, std::int64_t rounds) {
    std::vector<double> ratios, medians, p99;
    double switches = 0, skipped = 0;
    for (std::int64_t round = 0; round <= rounds; ++round) { // the first warms up
      Session one(composed), other(alone);
      std::vector<double> mine, theirs;
      const auto step = [&](Session& session, std::size_t i, std::vector<double>& times) {
        times.push_back(seconds([&] { session.append({&text_[i], 1}), session.logits(); }));
      };
      machine_.around([&] {
        for (std::size_t i = 0; i < kSteps; ++i) {
          if (i % 2) step(one, i, mine);
          step(other, i, theirs);
          if (i % 2 == 0) step(one, i, mine);
        }
      });
      if (round == 0) continue;
      ratios.push_back(sum(mine) / sum(theirs));
      std::sort(mine.begin(), mine.end()), std::sort(theirs.begin(), theirs.end());
      medians.push_back(median(mine) / median(theirs)); // without what experts catch up on
      p99.push_back(mine[mine.size() * 99 / 100] / median(theirs));
      switches = static_cast<double>(changes(one));
      skipped = composed.experts().total_work().skipped();
    }
    fmt::print(
        "{{\"work\": \"steps\", \"policy\": \"{}\", \"compute\": \"{}\", \"tokens\": {}, \"mean_ratio\": {:.3f}, "
        "\"lowest\": {:.3f}, \"highest\": {:.3f}, \"median_ratio\": {:.3f}, \"p99_of_base_median\": {:.2f}, "
        "\"switches\": {}, "
        "\"work_skipped\": {:.3f}}}\n",
        policy, format_, kSteps, median(ratios), *std::min_element(ratios.begin(), ratios.end()),
        *std::max_element(ratios.begin(), ratios.end()), median(medians), median(p99), switches, skipped);
    std::fflush(stdout);
  }

  void prompts(Composition& composed, Composition& alone, const std::string& policy, std::int64_t rounds) {
    const std::span<const std::int32_t> prompt(text_.data(), kPrompt);
    const at::Tensor h_NC = at::randn({kPrompt, model_->contract().width});
    const tenon_span span{0, kPrompt, 0, nullptr};
    std::vector<double> ratios;
    double more = 0;
    for (std::int64_t round = 0; round <= rounds; ++round) {
      const auto read = [&](Composition& composition) {
        Session session(composition);
        session.append(prompt);
        return seconds([&] { session.logits(); });
      };
      const std::int64_t before = run_rows(composed);
      double mine = 0, base = 0, middle = 0;
      const auto ours = [&] { mine = read(composed); };
      const auto work = [&] {
        base = read(alone);
        middle = seconds([&] { alone.packages().front().expert->forward(h_NC, at::Tensor(), {&span, 1}); });
      };
      machine_.pair(static_cast<int>(round), ours, work);
      more = static_cast<double>(run_rows(composed) - before) / kPrompt - 1.0; // of the middle, in times of the base
      if (round > 0) ratios.push_back(mine / (base + more * middle));
    }
    fmt::print(
        "{{\"work\": \"prompt\", \"policy\": \"{}\", \"compute\": \"{}\", \"tokens\": {}, \"ratio_to_its_work\": "
        "{:.3f}, \"lowest\": {:.3f}, \"highest\": {:.3f}, \"middles_run\": {:.2f}}}\n",
        policy, format_, kPrompt, median(ratios), *std::min_element(ratios.begin(), ratios.end()),
        *std::max_element(ratios.begin(), ratios.end()), more + 1.0);
    std::fflush(stdout);
  }

  static double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }
  static std::int64_t run_rows(Composition& composition) { return composition.experts().total_work().run_rows; }
  static std::int64_t changes(const Session& session) {
    std::int64_t out = 0;
    std::vector<float> before = session.strengths(0);
    for (std::size_t position = 1; position < session.positions_run(); ++position) {
      std::vector<float> now = session.strengths(position);
      out += now != before;
      before = std::move(now);
    }
    return out;
  }

  fs::path cache_;
  Loader loader_;
  std::shared_ptr<const Model> model_;
  std::string format_;
  std::vector<Row> rows_;
  at::Tensor held_out_NC_;
  std::vector<std::int32_t> text_;
  cpu::bench::Machine machine_;
};

} // namespace
} // namespace tenon

int main(int argc, char** argv) {
  using namespace tenon;
  if (argc < 4) return std::fputs("usage: tenon_composition_bench HOME MODEL CORPORA [FORMAT] [ROUNDS]\n", stderr), 2;
  try {
    const at::NoGradGuard no_grad;
    Bench bench(argv[1], argv[2], argv[3], format_of(argc > 4 ? argv[4] : "stored"));
    for (const char* policy : {"sticky", "token"}) bench.measure(policy, argc > 5 ? std::atoi(argv[5]) : 7);
    bench.draw(argc > 5 ? std::atoi(argv[5]) : 7);
    bench.machine().print();
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
