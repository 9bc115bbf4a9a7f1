// Tenon's side of inference.py and peers/compare.py: one process that keeps a model warm (trunk, base, head; the normal
// session) and answers every line of JSON on standard input with a line:
//
//   {"do": "prompt", "ids": [...], "logits": true}       {"seconds": s, "logits": [...]}   of the last position
//   {"do": "steps", "context": [...], "next": [...]}     {"seconds": s}   of the tokens in `next`, one by one
//   {"do": "probe"}                                      what the machine can do now
//   {"do": "about"}                                      threads, kernels, and what a token costs at least
//   {"ids": [...], "decode": n}                          tokens/s of reading, then of writing n tokens greedily
//
//   tenon_inference_bench HOME MODEL [FORMAT]
#include "host/inference/cost.hpp"
#include "host/inference/generate.hpp"
#include "kernels/cpu/engine.hpp"

#include <fmt/format.h>

#include <ATen/Parallel.h>
#include <torch/version.h>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <iostream>

namespace tenon {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::unique_ptr<Composition> open_model(const std::filesystem::path& home, const std::string& name,
                                        const std::string& format) {
  const Registry registry(home / "registry");
  const Loader loader(registry, {home / "store", home / "cache", {}, format_of(format)});
  const auto model = loader.model(registry.resolve(PackageRequest::parse(name), Kind::model));
  return std::make_unique<Composition>(model, std::vector<ExpertPackage>{loader.base(*model)}, Routing{}, 0.0,
                                       Composition::Options{});
}

std::vector<std::int32_t> ids_of(const JsonReader& list) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < list.array().size(); ++i) ids.push_back(static_cast<std::int32_t>(list.at(i).integer()));
  return ids;
}

class Side {
 public:
  Side(std::unique_ptr<Composition> composition, std::string format)
      : composition_(std::move(composition)), format_(std::move(format)) {}

  json::object answer(const JsonReader& job) {
    const std::string what = job.string("do", "write");
    if (what == "prompt") return prompt(job);
    if (what == "steps") return steps(job);
    if (what == "probe") return probe();
    if (what == "about") return about();
    return write(job);
  }

 private:
  json::object prompt(const JsonReader& job) {
    Session session(*composition_);
    session.append(ids_of(job.at("ids")));
    const auto start = Clock::now();
    const std::span<const float> logits_V = session.logits();
    json::object out = {{"seconds", seconds_since(start)}};
    if (job.boolean("logits", false)) out["logits"] = json::array(logits_V.begin(), logits_V.end());
    return out;
  }

  json::object steps(const JsonReader& job) {
    const std::vector<std::int32_t> context = ids_of(job.at("context")), next = ids_of(job.at("next"));
    Session& session = holding(context);
    const auto start = Clock::now();
    for (const std::int32_t token : next) {
      session.append({&token, 1});
      session.logits();
    }
    return {{"seconds", seconds_since(start)}};
  }

  // The session that holds exactly these, run: reading a long context again for every measurement would take minutes.
  Session& holding(const std::vector<std::int32_t>& context) {
    auto [found, fresh] = held_.try_emplace(context.size(), *composition_);
    Session& session = found->second;
    session.truncate(context.size());
    if (session.tokens() != context) {
      session.truncate(0);
      session.append(context);
    }
    session.logits();
    return session;
  }

  json::object probe() {
    const cpu::Limits limits = machine().measure(*cpu::engine().pool);
    return {{"read", limits.read}, {"float32", limits.float32}, {"bf16", limits.bf16}, {"int8", limits.int8}};
  }

  json::object about() {
    Cost layers = layers_cost(composition_->model());
    layers += expert_cost(*composition_->packages().front().expert);
    const Cost unembedding = unembedding_cost(composition_->model());
    Cost seen = seen_cost(composition_->model());
    seen += seen_cost(*composition_->packages().front().expert);
    const auto operations = [](const Cost& cost) {
      return json::object{{"float32", cost.float32}, {"bf16", cost.bf16}, {"int8", cost.int8}};
    };
    const char* kernels =
        format_ == "float32" ? "LibTorch " TORCH_VERSION : cpu::tier_name(cpu::engine().kernels->tier);
    return {{"name", "tenon"},
            {"version", TENON_VERSION},
            {"flags",
             fmt::format("{} in {}, {}, g++ {}", composition_->model().manifest().name, format_, kernels, __VERSION__)},
            {"threads", threads()},
            {"step_bytes", layers.bytes + unembedding.bytes},
            {"position_bytes", seen.bytes},
            {"row_operations", operations(layers)},
            {"position_operations", operations(seen)}};
  }

  json::object write(const JsonReader& job) {
    Session session(*composition_);
    session.append(ids_of(job.at("ids")));
    GenerateOptions options;
    options.max_tokens = job.at("decode").integer() + 1; // the first comes from the prompt's own logits
    generate(session, options);
    return {
        {"prefill", session.speed().prefill_rate()}, {"decode", session.speed().decode_rate()}, {"threads", threads()}};
  }

  // Made when it is asked for: its memory is not the model's.
  const cpu::Probe& machine() {
    if (!probe_) probe_ = std::make_unique<cpu::Probe>();
    return *probe_;
  }

  int threads() const { return format_ == "float32" ? at::get_num_threads() : cpu::engine().pool->threads(); }

  std::unique_ptr<Composition> composition_;
  std::string format_;
  std::map<std::size_t, Session> held_; // by length
  std::unique_ptr<cpu::Probe> probe_;
};

} // namespace
} // namespace tenon

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return std::fputs("usage: tenon_inference_bench HOME MODEL [FORMAT]\n", stderr), 2;
  try {
    const std::string format = argc == 4 ? argv[3] : "float32";
    tenon::Side side(tenon::open_model(argv[1], argv[2], format), format);
    for (std::string line; std::getline(std::cin, line);) {
      const tenon::json::value job = tenon::parse_json(line, "stdin");
      std::cout << boost::json::serialize(side.answer(tenon::JsonReader(job, "stdin"))) << std::endl;
    }
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
