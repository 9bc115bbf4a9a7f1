// Sequences decoded together against one alone, on a real model: how much of what they share is paid once.
//
//   tenon_batching_bench HOME MODEL [FORMAT] [ROUNDS] [SEQUENCES]
//
//   together   S sequences that share one expert (the model's own middle), tokens/s of all over tokens/s of one
//   apart      S sequences, each with an expert of the base's size of its own, over one. What bytes allow: one token
//              reads trunk, one expert and head; S together read trunk and head once and S experts
//   changes    S sequences, each with changes of rank 16 to the base of its own (tenon.low_rank), over one such
// Every two arms that are compared run one after the other between two probes of the machine, and take turns at being
// first; medians of the pairs' ratios are printed, with the lowest and the highest, and what part of the machine's
// limit (bytes or products, whichever binds) each arm reached; then where a step's time goes. Never a test: the figures
// are the machine's as much as ours.
#include "host/inference/cost.hpp"
#include "host/inference/sampling.hpp"
#include "host/inference/step.hpp"
#include "host/training/subject.hpp"
#include "tests/bench/copies.hpp"
#include "tests/bench/machine.hpp"

#include <fmt/format.h>

#include <ATen/ATen.h>

namespace tenon {
namespace {

using cpu::bench::Machine, cpu::bench::median, cpu::bench::seconds;

constexpr std::int64_t kPrompt = 64, kTokens = 48;
constexpr double kCertain = 1e3; // a score at which an expert has all the strength there is

std::string spread(const std::vector<double>& ratios) {
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  return fmt::format("{:.2f}x ({:.2f} to {:.2f})", median(ratios), *low, *high);
}

// Chosen with certainty, unless a sequence excludes it.
Row certain_row(const Model& model) { return {at::zeros({model.shape().width}), kCertain}; }

// The base with changes of low rank, as they are born.
ExpertPackage changed(const Loader& loader, const Model& model, const ExpertPackage& base, std::int64_t number) {
  ExpertPackage out = base;
  out.entry.name = fmt::format("change{}", number);
  const Plugin& plugin = find_plugin(loader, {}, "tenon.low_rank", "");
  const json::object config = plugin.facts.architecture("tenon.low_rank")->complete({{"rank", 16}});
  out.expert = loader.create(plugin, "tenon.low_rank", config, model, &base.manifest, out.entry.title());
  for (const ExpertParameter& parameter : out.expert->parameters())
    if (parameter.shared) out.expert->bind(parameter.name, base.weights->at(*parameter.shared));
  out.expert->initialize(static_cast<std::uint64_t>(number));
  out.expert->prepare(TENON_INFERENCE);
  out.row = certain_row(model);
  return out;
}

std::vector<std::int32_t> prompt(std::int64_t number, std::int64_t vocab) {
  const RandomStream random(1, fmt::format("prompt{}", number));
  std::vector<std::int32_t> ids(kPrompt);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(random.below(i, static_cast<std::uint64_t>(vocab)));
  return ids;
}

// Tokens/s of these many sequences decoded together, greedily. own: sequence i has expert own + i alone; 0: the base.
double decode(Composition& composition, std::int64_t count, std::int64_t own) {
  const std::size_t slots = composition.packages().size();
  const Sampler sampler(SamplingOptions{});
  std::vector<Session> sessions;
  for (std::int64_t i = 0; i < count; ++i) {
    SessionOptions options;
    options.excluded.assign(slots, true);
    options.excluded[0] = false;
    if (own > 0) options.excluded[static_cast<std::size_t>(own + i)] = false;
    Session& session = sessions.emplace_back(composition, options);
    session.append(prompt(i, composition.model().shape().vocab));
    (void)session.logits();
  }
  const double taken = seconds([&] {
    for (std::int64_t token = 0; token < kTokens; ++token) {
      std::vector<StepPart> parts;
      for (Session& session : sessions) {
        const std::int32_t id = sampler.sample(session.logits(), static_cast<std::uint64_t>(token));
        session.append({&id, 1});
        parts.push_back({&session, 1});
      }
      step(composition, parts);
    }
  });
  if (own > 0)
    for (const Session& session : sessions)
      if (session.strengths(kPrompt)[0] != 0) throw std::runtime_error("the base was asked, too");
  return static_cast<double>(count * kTokens) / taken;
}

// Where a step's time goes, in ms: medians over the steps.
struct StepTimes {
  std::vector<double> trunk = {}, middle = {}, head = {}, logits = {}, drawing = {};

  // Steps of so many sequences that share the base, one part after another, as host/inference/step.cpp has them.
  void measure(Composition& composition, std::int64_t count) {
    std::vector<Sequence> sequences;
    for (std::int64_t i = 0; i < count; ++i)
      sequences.emplace_back(composition.new_sequence()).excluded.assign(composition.packages().size(), true);
    for (Sequence& sequence : sequences) sequence.excluded[0] = false;
    const Sampler sampler(SamplingOptions{});
    const Head& head_of = composition.model().head();
    at::Tensor tokens_N = at::randint(composition.model().shape().vocab, {count}, at::kLong);
    for (std::int64_t token = 0; token < kPrompt + kTokens; ++token) {
      Batch batch{tokens_N, {}};
      for (std::int64_t i = 0; i < count; ++i)
        batch.rows.push_back({i, 1, token, &sequences[static_cast<std::size_t>(i)]});
      at::Tensor h_NC, m_NC, features_NC, logits_NV;
      const auto timed = [&](std::vector<double>& to, const auto& work) {
        const double taken = 1e3 * seconds(work);
        if (token >= kPrompt) to.push_back(taken);
      };
      timed(trunk, [&] { h_NC = composition.read(batch); });
      timed(middle, [&] { m_NC = composition.merged(h_NC, composition.last_strengths(), batch); });
      timed(head, [&] { features_NC = head_of.features(m_NC, batch); });
      timed(logits, [&] { logits_NV = head_of.logits(features_NC); });
      timed(drawing, [&] {
        const auto vocab = static_cast<std::size_t>(logits_NV.size(1));
        for (std::int64_t i = 0; i < count; ++i)
          tokens_N.data_ptr<std::int64_t>()[i] =
              sampler.sample({logits_NV[i].data_ptr<float>(), vocab}, static_cast<std::uint64_t>(token));
      });
    }
  }
  void print(std::int64_t count) const {
    fmt::print(
        "a step of {} on one expert, ms: trunk and router {:.2f}, expert {:.2f}, head {:.2f}, logits {:.2f}, "
        "drawing {:.2f}\n",
        count, median(trunk), median(middle), median(head), median(logits), median(drawing));
  }
};

// Tokens/s that the machine allows S sequences, with this many experts read.
double limit(const cpu::Limits& machine, const Cost& ends, const Cost& expert, double sequences, double experts) {
  const double reading = ends.reading(machine) + experts * expert.reading(machine),
               computing = sequences * (ends.computing(machine) + expert.computing(machine));
  return sequences / std::max(reading, computing);
}

class Bench {
 public:
  Bench(const std::filesystem::path& home, const std::string& name, const std::string& format, std::int64_t count)
      : loader_(Registry(home / "registry"), {home / "store", home / "cache", {}, format_of(format)}),
        model_(loader_.model(loader_.registry().resolve(PackageRequest::parse(name), Kind::model))),
        copies_(loader_, *model_, home / "cache"),
        count_(count) {
    if (!model_->weights().packed())
      throw std::runtime_error("need a format our kernels compute in: bf16, int8, int4 or stored");
    const ExpertPackage base = loader_.base(*model_);
    ends_ = layers_cost(*model_), ends_ += unembedding_cost(*model_);
    expert_ = expert_cost(*base.expert);
    std::vector<ExpertPackage> packages = {base};
    for (std::int64_t i = 0; i < count; ++i) packages.push_back(copies_.make(base, i, certain_row(*model_)));
    for (std::int64_t i = 0; i < count; ++i) packages.push_back(changed(loader_, *model_, base, i));
    composition_ = std::make_unique<Composition>(model_, packages, Routing{"top_k", 2, 1.0, "token"}, 0.0,
                                                 Composition::Options{true, {}});
    fmt::print("{} in {}: {:.1f} MB shared, {:.1f} MB an expert; {} prompt tokens, {} written\n", name, format,
               ends_.bytes / 1e6, expert_.bytes / 1e6, kPrompt, kTokens);
  }

  void run(int rounds) {
    for (int round = 0; round <= rounds; ++round) { // the first warms up
      const Pair together = pair(round, {1, 0}, {count_, 0}), apart = pair(round, {1, 1}, {count_, 1}),
                 changes = pair(round, {1, 1 + count_}, {count_, 1 + count_}),
                 change = pair(round, {1, 0}, {1, 1 + count_});
      if (round == 0) continue;
      one_times_.measure(*composition_, 1), times_.measure(*composition_, count_);
      const auto s = static_cast<double>(count_);
      one_.push_back(together.one);
      together_.push_back(together.ratio()), apart_.push_back(apart.ratio());
      changes_.push_back(changes.ratio()), change_.push_back(change.ratio());
      one_part_.push_back(together.one / limit(together.machine, ends_, expert_, 1, 1));
      together_part_.push_back(together.other / limit(together.machine, ends_, expert_, s, 1));
      apart_part_.push_back(apart.other / limit(apart.machine, ends_, expert_, s, s));
      fmt::print(stderr,
                 "round {}: {:.1f} tokens/s alone, {:.1f} together, {:.1f} apart, {:.1f} changed; {:.1f} GB/s\n", round,
                 together.one, together.other, apart.other, changes.other, together.machine.read);
    }
    print();
    one_times_.print(1), times_.print(count_);
    machine_.print();
  }

 private:
  struct Arm {
    std::int64_t sequences, own; // as decode() has them
  };
  struct Pair {
    double one = 0, other = 0; // tokens/s
    cpu::Limits machine;
    double ratio() const { return other / one; }
  };
  Pair pair(int number, const Arm& one, const Arm& other) {
    Pair out;
    out.machine = machine_.pair(
        number, [&] { out.one = decode(*composition_, one.sequences, one.own); },
        [&] { out.other = decode(*composition_, other.sequences, other.own); });
    return out;
  }

  void print() const {
    const auto s = static_cast<double>(count_);
    const double bytes = s * (ends_.bytes + expert_.bytes) / (ends_.bytes + s * expert_.bytes);
    fmt::print("alone      {:.1f} tokens/s, {:.2f} of the machine's limit\n", median(one_), median(one_part_));
    fmt::print("together   {} of one, {:.2f} of the limit; bar 4.00x at 8\n", spread(together_),
               median(together_part_));
    fmt::print("apart      {} of one, {:.2f} of the limit; bytes allow {:.2f}x, reached {:.2f} of it; bar 0.70\n",
               spread(apart_), median(apart_part_), bytes, median(apart_) / bytes);
    fmt::print("changes    {} of one such, which writes {} of what the base does\n", spread(changes_), spread(change_));
  }

  Loader loader_;
  std::shared_ptr<const Model> model_;
  bench::Copies copies_;
  std::int64_t count_;
  Cost ends_, expert_;
  std::unique_ptr<Composition> composition_;
  Machine machine_;
  StepTimes one_times_, times_;
  std::vector<double> one_, together_, apart_, one_part_, together_part_, apart_part_, change_, changes_;
};

} // namespace
} // namespace tenon

int main(int argc, char** argv) {
  if (argc < 3) return std::fputs("usage: tenon_batching_bench HOME MODEL [FORMAT] [ROUNDS] [SEQUENCES]\n", stderr), 2;
  try {
    tenon::Bench bench(argv[1], argv[2], argc > 3 ? argv[3] : "stored", argc > 5 ? std::atoi(argv[5]) : 8);
    bench.run(argc > 4 ? std::atoi(argv[4]) : 7);
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
