#include "host/training/train.hpp"

#include "host/training/evidence.hpp"
#include "host/training/material.hpp"
#include "host/training/package_folder.hpp"
#include "host/training/pass.hpp"
#include "host/training/run_folder.hpp"
#include "host/training/stitches.hpp"
#include "host/training/trainer.hpp"
#include "kernels/gradients.hpp"
#include "registry/base/error.hpp"
#include "registry/names.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>

namespace tenon {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One run of train_expert: its parts in order.
class Training {
 public:
  Training(const Loader& loader, const TrainingJob& job, const TrainingHooks& hooks)
      : loader_(loader),
        job_(job),
        plan_(job.plan),
        hooks_(hooks),
        folder_(job.folder),
        material_(loader, plan_, subject_, hooks) {}

  TrainingResult run();

 private:
  TrainingIdentity identity(const CorpusSplit& text) const;
  void first_stitches(const Streams& domain, const std::optional<Streams>& general) const;
  Row by_steps(const Streams& domain, const Streams& held_out, const std::optional<std::int64_t>& begun,
               const TrainingIdentity& identity, TrainingResult& result);
  Row by_a_pass(const Streams& domain, const std::optional<std::int64_t>& begun, const TrainingIdentity& identity,
                TrainingResult& result);
  void save(const NamedTensors& tensors, std::int64_t step, const TrainingIdentity& identity) const;
  // Steps of the plan; a pass is one.
  std::int64_t all_steps() const { return subject_.learns_in_a_pass() ? 1 : plan_.train.steps; }
  void steps(Trainer& trainer, std::int64_t first, const TrainingIdentity& identity, const Streams& held_out,
             TrainingResult& result);
  void check_stop(const Trainer& trainer, std::int64_t done, std::int64_t first,
                  const TrainingIdentity& identity) const;
  void evaluate_between(const Trainer& trainer, std::int64_t done, const Streams& held_out);
  json::object provenance(const CorpusSplit& text, const TrainingIdentity& identity) const;
  void check_frozen(const std::string& before) const;

  const Loader& loader_;
  const TrainingJob& job_;
  const TrainingPlan& plan_;
  const TrainingHooks& hooks_;
  RunFolder folder_;
  Subject subject_;
  Material material_;
};

TrainingIdentity Training::identity(const CorpusSplit& text) const {
  TrainingIdentity ids = {{"plan", plan_.digest()},
                          {"text", text.digest},
                          {"model", subject_.manifest.contract.model_digest},
                          {"base", subject_.manifest.contract.base_digest},
                          {"expert name", job_.name},
                          {"plugin", subject_.plugin->digest}};
  if (subject_.source) ids["source"] = subject_.source->digest();
  return ids;
}

void Training::first_stitches(const Streams& domain, const std::optional<Streams>& general) const {
  const StitchFit fit = fit_stitches(subject_, domain, general, plan_.stitch, hooks_);
  if (fit.down)
    hooks_.say(fmt::format("stitch down: leaves {:.2f}% of the stream's variance in {} unexplained", 100.0 * *fit.down,
                           subject_.source->title()));
  if (fit.up) hooks_.say(fmt::format("stitch up: leaves {:.2f}% of the base's variance unexplained", 100.0 * *fit.up));
}

void Training::save(const NamedTensors& tensors, std::int64_t step, const TrainingIdentity& identity) const {
  write_checkpoint(folder_.checkpoint(), {step, identity, tensors});
}

// The steps already made are saved first, so that nothing of them is lost.
void Training::check_stop(const Trainer& trainer, std::int64_t done, std::int64_t first,
                          const TrainingIdentity& identity) const {
  const bool halted = job_.halt_after > 0 && done - first >= job_.halt_after && done < plan_.train.steps;
  if (!halted && !hooks_.stopped()) return;
  save(trainer.tensors(), done, identity);
  throw Error(Code::interrupted, "train",
              fmt::format("stopped after step {} of {}; it is saved", done, plan_.train.steps),
              "run the same command again to go on");
}

void Training::steps(Trainer& trainer, std::int64_t first, const TrainingIdentity& identity, const Streams& held_out,
                     TrainingResult& result) {
  folder_.open_metrics(first);
  const std::int64_t a_step = plan_.train.batch * plan_.train.accumulate * plan_.data.sequence_length;
  hooks_.say_begin("training " + job_.name, plan_.train.steps * a_step, "tokens", first * a_step);
  const Clock::time_point start = Clock::now();
  double smooth = 0.0, weight = 0.0; // of the loss, for people
  for (std::int64_t step = first; step < plan_.train.steps; ++step) {
    const Clock::time_point begun = Clock::now();
    const StepReport report = trainer.step(step);
    const double seconds = seconds_since(begun);
    folder_.write_metrics(report, seconds_since(start), static_cast<double>(report.tokens) / seconds);
    if (!report.general) smooth = 0.9 * smooth + 0.1 * report.loss, weight = 0.9 * weight + 0.1;
    hooks_.say_update((step + 1) * a_step, weight > 0 ? fmt::format("loss {:.3f}", smooth / weight) : "");
    if ((step + 1) % plan_.checkpoint_every == 0 || step + 1 == plan_.train.steps)
      save(trainer.tensors(), step + 1, identity);
    if (plan_.evaluate_every > 0 && (step + 1) % plan_.evaluate_every == 0)
      evaluate_between(trainer, step + 1, held_out);
    check_stop(trainer, step + 1, first, identity);
  }
  hooks_.say_end();
  result.steps = plan_.train.steps - first;
  result.seconds = seconds_since(start);
  result.tokens_per_second = static_cast<double>(result.steps * a_step) / std::max(result.seconds, 1e-9);
}

void Training::evaluate_between(const Trainer& trainer, std::int64_t done, const Streams& held_out) {
  const HeldOutLosses losses = measure_held_out(subject_, held_out, trainer.row(), plan_.evaluate_blocks, {});
  subject_.expert->prepare(TENON_TRAINING);
  json::object line = evidence_json(losses, "");
  line["step"] = done;
  folder_.write_metrics(line);
}

json::object Training::provenance(const CorpusSplit& text, const TrainingIdentity& identity) const {
  json::object ids, plan = plan_.used(subject_.learns_in_a_pass());
  for (const auto& [what, digest] : identity) ids[what] = digest;
  plan.at("data").as_object().erase("paths"); // the trainer's own affair
  const std::int64_t tokens =
      plan_.data.sequence_length * (subject_.learns_in_a_pass()
                                        ? plan_.pass.blocks
                                        : plan_.train.steps * plan_.train.batch * plan_.train.accumulate);
  return {{"trained_from", ids}, {"training_tokens", tokens},           {"text", material_.provenance(text)},
          {"plan", plan},        {"base", subject_.base.entry.title()}, {"model", subject_.model_entry.title()}};
}

void Training::check_frozen(const std::string& before) const {
  if (subject_.frozen_digest() != before)
    throw Error(Code::integrity, "train", "trunk, head or base changed in memory while the expert was trained",
                "this expert is not to be trusted; please report the plugin " + subject_.plugin->facts.title());
}

Row Training::by_steps(const Streams& domain, const Streams& held_out, const std::optional<std::int64_t>& begun,
                       const TrainingIdentity& identity, TrainingResult& result) {
  const std::optional<Streams> general = material_.general();
  const Row row =
      begun ? Row{at::zeros_like(subject_.model->statistics().mean_C), 0.0} : material_.first_row(domain, general);
  if (!begun) first_stitches(domain, general);
  Trainer trainer(plan_, subject_, domain, general, row);
  if (begun)
    read_checkpoint(folder_.checkpoint(), trainer.tensors());
  else
    save(trainer.tensors(), 0, identity);
  if (begun && *begun > 0) hooks_.say(fmt::format("going on from step {} of {}", *begun, plan_.train.steps));
  if (plan_.train.bfloat16 && !narrow_products_are_fast())
    hooks_.say(
        "note: without instructions for products in bfloat16 (AVX-512 BF16) they are computed in float32 here, of "
        "rounded numbers: no faster than a training with --set train.dtype=float32, and less exact");
  steps(trainer, begun.value_or(0), identity, held_out, result);
  return trainer.row();
}

// Saved once, when the pass is over: one that was stopped starts over.
Row Training::by_a_pass(const Streams& domain, const std::optional<std::int64_t>& begun,
                        const TrainingIdentity& identity, TrainingResult& result) {
  Row row{at::zeros_like(subject_.model->statistics().mean_C), 0.0};
  at::Tensor b_1 = at::zeros({1});
  const auto tensors = [&] {
    NamedTensors all = subject_.own();
    all.emplace_back("row/r", row.r_C), all.emplace_back("row/b", b_1);
    return all;
  };
  if (begun) {
    read_checkpoint(folder_.checkpoint(), tensors());
    row.b = b_1.item<double>();
    return row;
  }
  row = material_.first_row(domain, material_.general());
  b_1.fill_(row.b);
  const Clock::time_point start = Clock::now();
  const PassReport report = learn_in_a_pass(plan_, subject_, domain, hooks_);
  result.positions = report.positions;
  result.seconds = seconds_since(start);
  result.tokens_per_second = static_cast<double>(report.positions) / std::max(result.seconds, 1e-9);
  hooks_.say(report.step_length > 0.0
                 ? fmt::format("pass: {} positions; on held-back text {:.3f} nats a token, base {:.3f} (step {:.3g})",
                               report.positions, report.loss, report.base_loss, report.step_length)
                 : "pass: no correction lowers the loss on held-back text; this expert is the base");
  save(tensors(), 1, identity);
  return row;
}

TrainingResult Training::run() {
  TrainingResult result;
  result.folder = folder_.package();
  subject_ = open_subject(loader_, job_.dev, plan_, job_.name);
  const std::string frozen = subject_.frozen_digest();
  try_out(subject_, plan_.data.sequence_length, subject_.learns_in_a_pass());
  const CorpusSplit text = material_.read_text();
  const TrainingIdentity ids = identity(text);
  const std::optional<std::int64_t> begun = folder_.resume(ids);
  if (folder_.is_finished()) {
    if (!begun)
      throw Error(Code::usage, folder_.package().string(), "holds an expert already",
                  "choose another folder with --out DIR");
    if (*begun == all_steps()) {
      result.was_finished = true;
      result.evidence = folder_.evidence();
      return result;
    }
  }
  // The text that evaluation may use, kept with the run: the cache may be cleared, and the inputs may change.
  copy_whole_file(text.held_out.path(), folder_.run() / "held_out.tokens");
  folder_.write_plan(plan_.used(subject_.learns_in_a_pass()), ids);
  // No more blocks than the steps, or the pass, will ask for.
  const std::int64_t blocks = subject_.learns_in_a_pass() ? plan_.pass.blocks : plan_.domain_sequences();
  const Streams domain = material_.domain(text, blocks), held_out = material_.held_out(text);
  const Row row = subject_.learns_in_a_pass() ? by_a_pass(domain, begun, ids, result)
                                              : by_steps(domain, held_out, begun, ids, result);
  const HeldOutLosses losses = measure_held_out(subject_, held_out, row, plan_.evaluate_blocks, hooks_);
  check_frozen(frozen);
  result.evidence = evidence_json(losses, text.held_out.digest());
  ExpertManifest manifest = subject_.manifest;
  manifest.evidence = {result.evidence};
  manifest.provenance = provenance(text, ids);
  write_package(folder_.package(), manifest, subject_, row, material_.profile(domain));
  return result;
}

} // namespace

TrainingResult train_expert(const Loader& loader, const TrainingJob& job, const TrainingHooks& hooks) {
  require_name(job.name, Kind::expert);
  return Training(loader, job, hooks).run();
}

} // namespace tenon
