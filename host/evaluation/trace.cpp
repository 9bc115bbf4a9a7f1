#include "host/evaluation/trace.hpp"

#include "host/evaluation/scorer.hpp"
#include "host/execution/merge.hpp"
#include "host/routing/strengths.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace tenon {
namespace {

constexpr std::int64_t kRowsAtOnce = 1024;

// Tokens [first, first + count * length) of a corpus: whole blocks, or the stretch behind the last one.
struct Part {
  std::int64_t first = 0, count = 0, length = 0;
};

std::vector<Part> parts(std::int64_t tokens, std::int64_t length) {
  std::vector<Part> out;
  const std::int64_t blocks = tokens / length, at_once = std::max<std::int64_t>(1, kRowsAtOnce / length);
  for (std::int64_t block = 0; block < blocks; block += at_once)
    out.push_back({block * length, std::min(at_once, blocks - block), length});
  if (const std::int64_t left = tokens - blocks * length; left > 0) out.push_back({blocks * length, 1, left});
  return out;
}

// Slots by falling strength, -1 where fewer than k were chosen; int32.
at::Tensor chosen_slots(const at::Tensor& w_NE, std::int64_t k) {
  const auto [sorted, order] = w_NE.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const at::Tensor slots_NK = order.narrow(1, 0, k).masked_fill(sorted.narrow(1, 0, k).eq(0), -1);
  return slots_NK.to(at::kInt).contiguous();
}

template <class T>
std::span<const T> numbers(const at::Tensor& tensor) {
  return {tensor.data_ptr<T>(), static_cast<std::size_t>(tensor.numel())};
}

class Tracer {
 public:
  Tracer(Composition& composition, const std::filesystem::path& path, const TraceHead& head,
         const TraceOptions& options)
      : composition_(composition), options_(options), chosen_(most_chosen()), writer_(path, head, chosen_) {}

  TracedCorpus run(const EvaluationCorpus& corpus, const std::function<void(std::int64_t)>& done) {
    TracedCorpus out{corpus.name,
                     corpus.tokens.digest(),
                     static_cast<std::int64_t>(corpus.tokens.tokens().size()),
                     static_cast<std::int64_t>(corpus.tokens.document_count()),
                     0,
                     0.0,
                     {}};
    Sums sums{std::vector<double>(composition_.packages().size(), 0.0),
              std::vector<std::int64_t>(composition_.packages().size(), 0)};
    writer_.write_documents(corpus.name, corpus.tokens.document_starts());
    for (const Part& part : parts(out.tokens, options_.sequence_length)) {
      if (options_.interrupted && options_.interrupted())
        throw Error(Code::interrupted, "trace", "stopped; nothing was written");
      write(corpus, part, sums);
      done(part.first + part.count * part.length);
    }
    out.predictions = sums.predictions;
    const double count = static_cast<double>(std::max<std::int64_t>(1, sums.predictions));
    out.nll = sums.nll / count;
    for (std::size_t slot = 0; slot < sums.strength.size(); ++slot)
      out.loads.push_back({composition_.packages()[slot].entry.name, sums.strength[slot] / count,
                           static_cast<double>(sums.strongest[slot]) / count});
    return out;
  }

  void commit() { writer_.commit(); }

 private:
  struct Sums {
    std::vector<double> strength;
    std::vector<std::int64_t> strongest;
    double nll = 0;
    std::int64_t predictions = 0;
  };

  // A replay may have chosen by any rule.
  std::int64_t most_chosen() const {
    const Routing& routing = composition_.router().routing();
    const std::int64_t experts = composition_.router().experts();
    return options_.replay || routing.strengths == "softmax" ? experts : std::min(routing.top_k, experts);
  }

  void write(const EvaluationCorpus& corpus, const Part& part, Sums& sums) {
    const std::int64_t rows = part.count * part.length;
    const auto ids =
        corpus.tokens.tokens().subspan(static_cast<std::size_t>(part.first), static_cast<std::size_t>(rows));
    at::Tensor tokens_BT = at::empty({part.count, part.length}, at::kLong);
    std::copy(ids.begin(), ids.end(), tokens_BT.data_ptr<std::int64_t>());
    const Batch batch = Batch::whole(tokens_BT);

    const at::Tensor h_NC = composition_.model().trunk().forward(batch);
    const Routed routed = composition_.router().route(h_NC, batch);
    at::Tensor w_NE =
        options_.replay ? options_.replay->strengths(corpus.name, part.first, rows) : routed.strengths_NE.clone();
    Experts& experts = composition_.experts();
    const at::Tensor m_NC = merge(h_NC, w_NE, experts, batch);
    for (std::size_t slot = 1; slot < experts.size(); ++slot)
      if (experts.masked(slot)) give_to_base(w_NE, static_cast<std::int64_t>(slot)); // as the merge applied them

    const at::Tensor nll_BT = part.length > 1 ? next_token_nll(composition_.model().head(), m_NC, batch)
                                              : at::empty({part.count, 0}, at::kDouble);
    at::Tensor all_BT = at::full({part.count, part.length}, std::numeric_limits<float>::quiet_NaN());
    all_BT.narrow(1, 0, part.length - 1).copy_(nll_BT);
    const at::Tensor scores_NE = routed.scores_NE.contiguous(), chosen_NK = chosen_slots(w_NE, chosen_);
    w_NE = w_NE.contiguous();
    writer_.write(corpus.name, {ids, numbers<std::int32_t>(chosen_NK), numbers<float>(scores_NE), numbers<float>(w_NE),
                                numbers<float>(all_BT)});
    add(w_NE.view({part.count, part.length, -1}), nll_BT, corpus.name, sums);
  }

  void add(const at::Tensor& w_BTE, const at::Tensor& nll_BT, const std::string& name, Sums& sums) const {
    const double nll = nll_BT.sum().item<double>();
    if (!std::isfinite(nll)) throw Error(Code::numeric, "trace", name + ": a loss is not finite");
    sums.nll += nll;
    sums.predictions += nll_BT.numel();
    const at::Tensor rest_NE = w_BTE.narrow(1, 1, w_BTE.size(1) - 1).flatten(0, 1);
    const at::Tensor sums_E = rest_NE.sum(0, false, at::kDouble), best_N = rest_NE.argmax(1);
    for (std::size_t slot = 0; slot < sums.strength.size(); ++slot) {
      sums.strength[slot] += sums_E[static_cast<std::int64_t>(slot)].item<double>();
      sums.strongest[slot] += best_N.eq(static_cast<std::int64_t>(slot)).sum().item<std::int64_t>();
    }
  }

  Composition& composition_;
  const TraceOptions& options_;
  std::int64_t chosen_;
  TraceWriter writer_;
};

TraceHead head_of(const Composition& composition, const std::vector<EvaluationCorpus>& corpora,
                  const TraceOptions& options) {
  TraceHead head{composition.model().contract().model_digest,
                 composition.model().tokenizer().digest(),
                 traced_experts(composition),
                 to_json(composition.router().routing()),
                 options.sequence_length,
                 {}};
  for (const EvaluationCorpus& corpus : corpora)
    head.corpora.push_back({corpus.name, corpus.tokens.digest(),
                            static_cast<std::int64_t>(corpus.tokens.tokens().size()),
                            static_cast<std::int64_t>(corpus.tokens.document_count())});
  return head;
}

} // namespace

TraceResult trace(Composition& composition, const std::vector<EvaluationCorpus>& corpora,
                  const std::filesystem::path& path, const TraceOptions& options) {
  at::NoGradGuard no_grad;
  if (options.sequence_length < 2)
    throw Error(Code::usage, "trace",
                "found sequence length " + std::to_string(options.sequence_length) + ", need at least 2");
  if (corpora.empty()) throw Error(Code::usage, "trace", "found no corpus, need at least one", "give --data NAME=PATH");
  std::int64_t total = 0, before = 0;
  for (const EvaluationCorpus& corpus : corpora) {
    check_tokenizer(corpus, composition.model());
    total += static_cast<std::int64_t>(corpus.tokens.tokens().size());
  }
  Experts& experts = composition.experts();
  experts.work.assign(experts.size(), {});
  Tracer tracer(composition, path, head_of(composition, corpora, options), options);
  TraceResult out;
  for (const EvaluationCorpus& corpus : corpora) {
    out.corpora.push_back(tracer.run(corpus, [&](std::int64_t here) {
      if (options.progress) options.progress(before + here, total);
    }));
    before += out.corpora.back().tokens;
  }
  tracer.commit();
  out.work = experts.work;
  for (std::size_t slot = 0; slot < experts.size(); ++slot)
    if (experts.masked(slot)) out.masked.push_back(composition.packages()[slot].entry.name);
  return out;
}

} // namespace tenon
