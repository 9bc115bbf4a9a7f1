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
      std::vector<Session*> ready;
      for (const StepPart& part : parts_)
        if (part.session->held() && settle(*part.session, catch_up_rows)) ready.push_back(part.session);
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

  // Whether the session may be merged in this step; where its experts have too much to catch up, as much of it is done
  // as may be. left: rows of catching up that this step still allows.
  bool settle(Session& session, std::int64_t& left) {
    const std::int64_t position = session.strengths_.length();
    Experts& experts = composition_.experts();
    const std::vector<Arrears> all = arrears(experts, session.sequence_, position, session.held_TE_);
    std::int64_t rows = 0;
    for (const Arrears& one : all) rows += one.rows;
    if (rows <= left) return left -= rows, true;
    for (const Arrears& one : all) {
      const std::int64_t count = std::min(one.rows, left);
      if (count > 0) catch_up(experts, session.sequence_, one.slot, count);
      left -= count;
    }
    return false;
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
