// Sequences decoded together against one alone, on a real model: how much of what they share is paid once.
//
//   tenon_batching_bench HOME MODEL [FORMAT] [ROUNDS] [SEQUENCES]
//
//   together   S sequences that share one expert (the model's own middle), tokens/s of all over tokens/s of one
//   apart      S sequences, each with an expert of the base's size of its own, over one. What bytes allow: one token
//              reads trunk, one expert and head; S together read trunk and head once and S experts
// Rounds alternate between the arms and a probe of the memory's bandwidth; medians of the rounds' ratios are printed,
// with the lowest and the highest. Never a test: the figures are the machine's as much as ours.
#include "host/inference/sampling.hpp"
#include "host/inference/step.hpp"
#include "kernels/cpu/engine.hpp"
#include "kernels/packed_forms.hpp"

#include <fmt/format.h>

#include <ATen/ATen.h>
#include <chrono>
#include <cstring>

namespace tenon {
namespace {

constexpr std::int64_t kPrompt = 64, kTokens = 48;
constexpr double kCertain = 1e3; // a score at which an expert has all the strength there is

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::string spread(const std::vector<double>& ratios) {
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  return fmt::format("{:.2f}x ({:.2f} to {:.2f})", median(ratios), *low, *high);
}

// GB/s of reads, all threads.
double bandwidth() {
  static const std::vector<std::uint64_t> memory(std::size_t{160} << 17, 1);
  constexpr std::int64_t kParts = 64;
  const auto part = static_cast<std::int64_t>(memory.size()) / kParts;
  std::vector<std::uint64_t> sums(kParts);
  const double taken = seconds([&] {
    cpu::engine().pool->run(kParts, [&](std::int64_t p) {
      std::uint64_t lanes[8] = {};
      const std::uint64_t* from = memory.data() + p * part;
      for (std::int64_t i = 0; i + 8 <= part; i += 8)
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += from[i + lane];
      for (const std::uint64_t lane : lanes) sums[static_cast<std::size_t>(p)] += lane;
    });
  });
  return static_cast<double>(memory.size() * sizeof(std::uint64_t)) / taken / 1e9;
}

std::size_t size_of(const cpu::PackedMatrix& matrix) {
  return cpu::packed_bytes(matrix.format, matrix.outputs, matrix.inputs).value(); // a multiple of 64
}

// Experts like the base, each with bytes of its own: the base's packed weights copied, its float32 ones never touched.
class Copies {
 public:
  Copies(const Loader& loader, const Model& model, const ExpertPackage& base) : loader_(loader), model_(model) {
    for (const ExpertParameter& parameter : base.expert->parameters())
      if (const auto form =
              parameter.tensor.dim() == 2
                  ? packed_form(parameter.tensor.data_ptr<float>(), parameter.tensor.size(0), parameter.tensor.size(1))
                  : std::nullopt)
        expert_bytes += size_of(form->matrix);
  }
  ~Copies() {
    for (const at::Tensor& weight : packed_) remove_packed_form(weight.data_ptr<float>());
  }

  ExpertPackage make(const ExpertPackage& base, std::int64_t number) {
    ExpertPackage copy = base;
    copy.entry.name = fmt::format("copy{}", number);
    const Plugin& plugin = loader_.plugin(base.manifest.plugin);
    copy.expert =
        loader_.create(plugin, base.manifest.architecture, base.manifest.config, model_, nullptr, copy.entry.title());
    for (const ExpertParameter& parameter : base.expert->parameters())
      copy.expert->bind(parameter.name, of_its_own(parameter.tensor));
    copy.expert->prepare(TENON_INFERENCE);
    copy.row = Row{at::zeros({model_.shape().width}), kCertain};
    return copy;
  }

  std::size_t expert_bytes = 0;

 private:
  at::Tensor of_its_own(const at::Tensor& weight) {
    const auto form =
        weight.dim() == 2 ? packed_form(weight.data_ptr<float>(), weight.size(0), weight.size(1)) : std::nullopt;
    if (!form) return weight.clone();
    at::Tensor untouched = at::empty(weight.sizes());
    cpu::PackedMatrix matrix = form->matrix;
    const std::shared_ptr<void> bytes(std::aligned_alloc(64, size_of(matrix)), std::free);
    std::memcpy(bytes.get(), matrix.bytes, size_of(matrix));
    matrix.bytes = static_cast<const std::byte*>(bytes.get());
    add_packed_form(untouched.data_ptr<float>(), {matrix, bytes});
    packed_.push_back(untouched);
    return untouched;
  }

  const Loader& loader_;
  const Model& model_;
  std::vector<at::Tensor> packed_;
};

std::vector<std::int32_t> prompt(std::int64_t number, std::int64_t vocab) {
  const RandomStream random(1, fmt::format("prompt{}", number));
  std::vector<std::int32_t> ids(kPrompt);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(random.below(i, static_cast<std::uint64_t>(vocab)));
  return ids;
}

// Tokens/s of these many sequences decoded together, greedily. apart: sequence i has expert i + 1 alone, else the base.
double decode(Composition& composition, std::int64_t count, bool apart) {
  const std::size_t slots = composition.packages().size();
  const Sampler sampler(SamplingOptions{});
  std::vector<Session> sessions;
  for (std::int64_t i = 0; i < count; ++i) {
    SessionOptions options;
    options.excluded.assign(slots, true);
    options.excluded[0] = false;
    if (apart) options.excluded[static_cast<std::size_t>(i) + 1] = false;
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
  if (apart)
    for (const Session& session : sessions)
      if (session.strengths(kPrompt)[0] != 0) throw std::runtime_error("the base was asked, too");
  return static_cast<double>(count * kTokens) / taken;
}

void run(const std::filesystem::path& home, const std::string& name, const std::string& format, int rounds,
         std::int64_t count) {
  const Registry registry(home / "registry");
  const Loader loader(registry, {home / "store", home / "cache", {}, format_of(format)});
  const auto model = loader.model(registry.resolve(PackageRequest::parse(name), Kind::model));
  if (!model->weights().packed())
    throw std::runtime_error("need a format our kernels compute in: bf16, int8, int4, stored");
  const ExpertPackage base = loader.base(*model);
  Copies copies(loader, *model, base);
  std::vector<ExpertPackage> packages = {base};
  for (std::int64_t i = 0; i < count; ++i) packages.push_back(copies.make(base, i));
  Composition composition(model, packages, {"top_k", 2, 1.0, "token"}, 0.0, {true, {}});
  const double shared = static_cast<double>(model->weights().packed()->bytes()),
               expert = static_cast<double>(copies.expert_bytes), s = static_cast<double>(count),
               limit = s * (shared + expert) / (shared + s * expert);
  fmt::print("{} in {}, {} threads: {:.1f} MB shared, {:.1f} MB an expert; {} prompt tokens, {} written\n", name,
             format, cpu::engine().pool->threads(), shared / 1e6, expert / 1e6, kPrompt, kTokens);
  std::vector<double> together, apart, one, probes;
  for (int round = 0; round <= rounds; ++round) { // the first warms up
    const double probe = bandwidth(), alone = decode(composition, 1, false), all = decode(composition, count, false),
                 own = decode(composition, 1, true), each = decode(composition, count, true);
    if (round == 0) continue;
    probes.push_back((probe + bandwidth()) / 2), one.push_back(alone);
    together.push_back(all / alone), apart.push_back(each / own);
    fmt::print(stderr, "round {}: {:.1f} tokens/s alone, {:.1f} together, {:.1f} apart; {:.1f} GB/s\n", round, alone,
               all, each, probes.back());
  }
  const double gigabytes = (shared + expert) * median(one) / 1e9;
  fmt::print("alone      {:.1f} tokens/s, {:.1f} of {:.1f} GB/s\n", median(one), gigabytes, median(probes));
  fmt::print("together   {} of one; bar 4.00x at 8\n", spread(together));
  fmt::print("apart      {} of one; bytes allow {:.2f}x, reached {:.2f} of it; bar 0.70\n", spread(apart), limit,
             median(apart) / limit);
}

} // namespace
} // namespace tenon

int main(int argc, char** argv) {
  if (argc < 3) return std::fputs("usage: tenon_batching_bench HOME MODEL [FORMAT] [ROUNDS] [SEQUENCES]\n", stderr), 2;
  try {
    tenon::run(argv[1], argv[2], argc > 3 ? argv[3] : "stored", argc > 4 ? std::atoi(argv[4]) : 7,
               argc > 5 ? std::atoi(argv[5]) : 8);
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
