#include "host/inference/step.hpp"

#include "host/execution/arrears.hpp"
#include "kernels/packed_operators.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace tenon {

class Step {
 public:
  Step(Composition& composition, std::span<const StepPart> parts) : composition_(composition), parts_(parts) {}

  void run(std::int64_t catch_up_rows) {
    std::vector<std::int64_t> before;
    for (const StepPart& part : parts_) before.push_back(part.session->strengths_.length());
    try {
      read();
      const std::vector<Session*> ready = settle(catch_up_rows);
      if (!ready.empty()) merge(ready);
    } catch (...) {
      for (std::size_t i = 0; i < parts_.size(); ++i) parts_[i].session->back_to(before[i]);
      throw;
    }
  }

 private:
  // Trunk and router over all new rows. All are held until they are merged.
  void read() {
    Batch batch;
    std::int64_t rows = 0;
    for (const StepPart& part : parts_) {
      if (part.rows == 0) continue;
      batch.rows.push_back({rows, part.rows, part.session->sequence_.length(), &part.session->sequence_});
      rows += part.rows;
    }
    if (rows == 0) return;
    batch.tokens_N = at::empty({rows}, at::kLong);
    auto* ids = batch.tokens_N.data_ptr<std::int64_t>();
    for (const StepPart& part : parts_)
      ids = std::copy_n(part.session->tokens_.begin() + part.session->strengths_.length(), part.rows, ids);
    composition_.read(batch);
    std::int64_t offset = 0;
    for (const StepPart& part : parts_) {
      if (part.rows == 0) continue;
      part.session->logits_V_ = at::Tensor();
      part.session->held_TE_ = composition_.last_strengths().narrow(0, offset, part.rows);
      offset += part.rows;
    }
  }

  // What the experts of a held session have to catch up before it may be merged.
  struct Debt {
    Session* session;
    std::vector<Arrears> all;
    std::int64_t rows = 0;
    bool settled = false;
  };

  // The sessions that may be merged in this step, in the order of the parts. left: rows of catching up that it allows,
  // in equal shares, least owed first: what one does not need is the next one's.
  std::vector<Session*> settle(std::int64_t left) {
    std::vector<Debt> debts;
    for (const StepPart& part : parts_)
      if (part.session->held()) debts.push_back(debt_of(*part.session));
    std::vector<Debt*> order;
    for (Debt& debt : debts) order.push_back(&debt);
    std::stable_sort(order.begin(), order.end(), [](const Debt* a, const Debt* b) { return a->rows < b->rows; });
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::int64_t equal = left / static_cast<std::int64_t>(order.size() - i),
                         share = std::min(order[i]->rows, std::max<std::int64_t>(equal, left > 0));
      pay(*order[i], share);
      left -= share;
    }
    std::vector<Session*> settled;
    for (const Debt& debt : debts)
      if (debt.settled) settled.push_back(debt.session);
    return settled;
  }

  Debt debt_of(Session& session) {
    Debt debt{&session,
              arrears(composition_.experts(), session.sequence_, session.strengths_.length(), session.held_TE_)};
    for (const Arrears& one : debt.all) debt.rows += one.rows;
    return debt;
  }

  // So many rows of it are caught up; by the merge itself where they are all there is.
  void pay(Debt& debt, std::int64_t share) {
    debt.settled = share == debt.rows;
    if (debt.settled) return;
    for (const Arrears& one : debt.all) {
      const std::int64_t count = std::min(one.rows, share);
      if (count > 0) catch_up(composition_.experts(), debt.session->sequence_, one.slot, count);
      share -= count;
    }
  }

  void merge(const std::vector<Session*>& ready) {
    Batch batch;
    std::vector<at::Tensor> h, w;
    std::vector<std::int64_t> last_rows;
    std::vector<Session*> last_of;
    std::int64_t rows = 0;
    for (Session* session : ready) {
      Sequence& sequence = session->sequence_;
      const std::int64_t position = session->strengths_.length(), end = sequence.length();
      const bool reads_last = end == static_cast<std::int64_t>(session->tokens_.size());
      batch.rows.push_back({rows, end - position, position, &sequence, end - position - reads_last});
      h.push_back(sequence.h.rows(position, end));
      w.push_back(session->held_TE_);
      rows += end - position;
      if (reads_last) last_rows.push_back(rows - 1), last_of.push_back(session);
    }
    const Head& head = composition_.model().head();
    const auto joined = [](const std::vector<at::Tensor>& parts) {
      return parts.size() == 1 ? parts[0] : at::cat(parts);
    };
    const at::Tensor features_NC = head.features(composition_.merged(joined(h), joined(w), batch), batch);
    if (!last_of.empty()) {
      const bool all = static_cast<std::int64_t>(last_rows.size()) == rows;
      const at::Tensor last_SC = all ? features_NC : features_NC.index_select(0, at::tensor(last_rows));
      const at::Tensor logits_SV = head.logits(last_SC).contiguous();
      for (std::size_t i = 0; i < last_of.size(); ++i) last_of[i]->logits_V_ = logits_SV[static_cast<std::int64_t>(i)];
    }
    for (Session* session : ready) {
      session->strengths_.append(session->held_TE_);
      session->held_TE_ = at::Tensor();
    }
  }

  Composition& composition_;
  std::span<const StepPart> parts_;
};

namespace {

// A long prompt computes in memory that the tokens after it do not need.
void give_back_after_long(std::int64_t rows) {
  constexpr std::int64_t many = 128;
  thread_local bool was_long = false;
  if (std::exchange(was_long, rows >= many) && rows < many) give_back_memory();
}

} // namespace

void step(Composition& composition, std::span<const StepPart> parts, std::int64_t catch_up_rows) {
  std::int64_t rows = 0;
  for (const StepPart& part : parts) rows += part.rows;
  give_back_after_long(rows);
  Step(composition, parts).run(catch_up_rows);
}

} // namespace tenon
