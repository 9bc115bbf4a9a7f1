// Tenon's side of inference.py: one process that keeps the model warm. For every line {"ids": [...], "decode": n} on
// standard input it reads the ids as one prompt, writes n tokens greedily, and answers with tokens/s of both.
//
//   tenon_inference_bench HOME MODEL [FORMAT]
#include "host/inference/generate.hpp"
#include "kernels/cpu/engine.hpp"

#include <fmt/format.h>

#include <ATen/Parallel.h>
#include <iostream>

namespace tenon {
namespace {

std::unique_ptr<Composition> open_model(const std::filesystem::path& home, const std::string& name,
                                        const std::string& format) {
  const Registry registry(home / "registry");
  const Loader loader(registry, {home / "store", home / "cache", {}, format_of(format)});
  const auto model = loader.model(registry.resolve(PackageRequest::parse(name), Kind::model));
  return std::make_unique<Composition>(model, std::vector<ExpertPackage>{loader.base(*model)}, Routing{}, 0.0,
                                       Composition::Options{});
}

void answer(Composition& composition, const std::string& line) {
  const json::value job = parse_json(line, "stdin");
  const JsonReader reader(job, "stdin"), ids = reader.at("ids");
  std::vector<std::int32_t> prompt;
  for (std::size_t i = 0; i < ids.size(); ++i) prompt.push_back(static_cast<std::int32_t>(ids.at(i).integer()));
  Session session(composition);
  session.append(prompt);
  GenerateOptions options;
  options.max_tokens = reader.at("decode").integer() + 1; // the first comes from the prompt's own logits
  generate(session, options);
  const bool plain = composition.model().weights().packed() == nullptr;
  const int threads = plain ? at::get_num_threads() : cpu::engine().pool->threads();
  fmt::print("{{\"prefill\": {}, \"decode\": {}, \"threads\": {}}}\n", session.speed().prefill_rate(),
             session.speed().decode_rate(), threads);
  std::fflush(stdout);
}

} // namespace
} // namespace tenon

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return std::fputs("usage: tenon_inference_bench HOME MODEL [FORMAT]\n", stderr), 2;
  try {
    const auto composition = tenon::open_model(argv[1], argv[2], argc == 4 ? argv[3] : "float32");
    for (std::string line; std::getline(std::cin, line);) tenon::answer(*composition, line);
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
