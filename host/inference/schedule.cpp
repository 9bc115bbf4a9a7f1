#include "host/inference/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {
namespace {

constexpr std::int64_t kLeastReuse = 16; // tokens in common that are worth a fork

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

[[noreturn]] void refuse(const std::string& message, const std::string& remedy) {
  throw Error(Code::usage, "schedule", message, remedy);
}

std::string megabytes(std::uint64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

} // namespace

// A request under way.
struct Scheduler::Member {
  BatchRequest request;
  Session session;
  Writing writing;
  std::size_t faults; // experts masked when it began: what was run before a fault is not what would be run now
  std::uint64_t reserved_bytes;
  std::int64_t reused = 0;
  Clock::time_point submitted, admitted, first_token = {};
  bool reading = false; // it has begun, or takes over nothing
  bool cancelled = false;
  std::optional<Error> error = {};

  std::int64_t left() const { return static_cast<std::int64_t>(session.tokens().size() - session.positions_run()); }
};

double Answer::tokens_per_second() const {
  const double writing = seconds - first_token_seconds;
  return made.tokens.size() > 1 && writing > 0 ? static_cast<double>(made.tokens.size() - 1) / writing : 0;
}

Scheduler::Scheduler(Composition& composition, ScheduleOptions options)
    : composition_(composition),
      options_(options),
      context_(context_of(composition.model(), options.context)),
      state_size_(composition) {
  options_.max_sequences = std::max<std::int64_t>(options_.max_sequences, 1);
  options_.prefill_chunk = std::max<std::int64_t>(options_.prefill_chunk, 1);
}

Scheduler::~Scheduler() = default;

// Requires: the context holds the prompt.
std::int64_t Scheduler::most_tokens(const BatchRequest& request) const {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  return prompt + std::clamp<std::int64_t>(request.options.max_tokens, 0, context_ - prompt);
}

void Scheduler::check_size(const BatchRequest& request) const {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  if (prompt == 0) refuse("found an empty prompt, need at least one token", "give it some text");
  if (prompt > context_)
    refuse(fmt::format("found a prompt of {} tokens, the context holds {}", prompt, context_),
           context_remedy(composition_.model()));
  const std::uint64_t need = state_size_.bytes(most_tokens(request));
  if (limited() && need > options_.budget_bytes)
    refuse(fmt::format("found a budget of {} for states, this request of up to {} tokens needs {}",
                       megabytes(options_.budget_bytes), most_tokens(request), megabytes(need)),
           fmt::format("give --budget {}, or fewer --max-tokens", need));
}

void Scheduler::submit(BatchRequest request) {
  check_size(request);
  const std::int64_t vocab = composition_.model().shape().vocab;
  for (const std::int32_t id : request.prompt)
    if (id < 0 || id >= vocab) refuse(fmt::format("found token {}, the vocabulary has {}", id, vocab), "");
  const auto same = [&](const auto& other) { return other.request.id == request.id; };
  if (std::any_of(waiting_.begin(), waiting_.end(), same) ||
      std::any_of(members_.begin(), members_.end(), [&](const auto& member) { return same(*member); }))
    refuse(fmt::format("found the id \"{}\" twice", request.id), "give each request its own id");
  (void)Sampler(request.options.sampling);
  waiting_.push_back({std::move(request), Clock::now()});
}

bool Scheduler::cancel(const std::string& id) {
  for (Waiting& waiting : waiting_)
    if (waiting.request.id == id) return waiting.cancelled = true;
  for (const auto& member : members_)
    if (member->request.id == id) return member->cancelled = true;
  return false;
}

void Scheduler::cancel_all() {
  for (Waiting& waiting : waiting_) waiting.cancelled = true;
  for (const auto& member : members_) member->cancelled = true;
}

std::size_t Scheduler::faults() const {
  std::size_t masked = 0;
  for (std::size_t slot = 0; slot < composition_.experts().size(); ++slot)
    masked += composition_.experts().masked(slot);
  return masked;
}

// Finished texts give way, oldest first.
bool Scheduler::make_room(std::uint64_t bytes) {
  while (limited() && bytes > options_.budget_bytes - reserved_bytes_) {
    if (finished_.empty()) return false;
    reserved_bytes_ -= finished_.front().reserved_bytes;
    finished_.pop_front();
  }
  return true;
}

// Whoever is cancelled needs neither place nor memory, wherever he stands.
void Scheduler::end_cancelled() {
  for (Waiting& waiting : waiting_)
    if (waiting.cancelled) join(waiting, 0);
  std::erase_if(waiting_, [](const Waiting& waiting) { return waiting.cancelled; });
  for (const auto& member : members_)
    if (member->cancelled && !member->writing.finished()) member->writing.end(Finish::interrupted);
}

void Scheduler::admit() {
  while (!waiting_.empty() && static_cast<std::int64_t>(members_.size()) < options_.max_sequences) {
    Waiting& next = waiting_.front();
    const std::uint64_t need = limited() ? state_size_.bytes(most_tokens(next.request)) : 0;
    if (!make_room(need)) return;
    join(next, need);
    waiting_.pop_front();
  }
}

void Scheduler::join(Waiting& waiting, std::uint64_t need) {
  SessionOptions options;
  options.context = context_;
  options.excluded = waiting.request.excluded;
  Session session(composition_, options);
  session.append(waiting.request.prompt);
  Writing writing(composition_.model().tokenizer(), waiting.request.options);
  members_.push_back(std::make_unique<Member>(Member{std::move(waiting.request), std::move(session), std::move(writing),
                                                     faults(), need, 0, waiting.submitted, Clock::now()}));
  members_.back()->cancelled = waiting.cancelled;
  reserved_bytes_ += need;
}

// Takes over what is known of its beginning. False while another is still reading more of the same beginning.
bool Scheduler::ready_to_read(Member& member) {
  if (member.reading || !options_.reuse) return true;
  const std::vector<std::int32_t>& prompt = member.request.prompt;
  // The last token is always run: its logits are wanted.
  const auto common = [&](const Session& other, std::size_t faults) -> std::int64_t {
    if (faults != member.faults || other.options().excluded != member.request.excluded) return 0;
    const auto& tokens = other.tokens();
    const auto same = std::mismatch(prompt.begin(), prompt.end() - 1, tokens.begin(), tokens.end()).first;
    return same - prompt.begin();
  };
  const Session* best = nullptr;
  std::int64_t known = kLeastReuse - 1, coming = known;
  const auto consider = [&](const Session& other, std::size_t faults, bool live) {
    const std::int64_t same = common(other, faults);
    const std::int64_t run = std::min(same, static_cast<std::int64_t>(other.positions_run()));
    if (run > known) known = run, best = &other;
    if (live) coming = std::max(coming, same);
  };
  for (const Finished& other : finished_) consider(other.session, other.faults, false);
  for (const auto& other : members_) {
    if (other.get() == &member) break; // those before it never wait for it
    consider(other->session, other->faults, true);
  }
  if (coming > known) return false;
  member.reading = true;
  if (!best) return true;
  Session taken = best->fork();
  taken.truncate(static_cast<std::size_t>(known));
  taken.append(std::span(prompt).subspan(static_cast<std::size_t>(known)));
  member.session = std::move(taken);
  member.reused = static_cast<std::int64_t>(member.session.positions_run());
  return true;
}

// One row of each answer; of prompts equal shares, what one does not need is the next one's.
std::vector<StepPart> Scheduler::plan() {
  std::vector<StepPart> parts;
  std::vector<Member*> reading;
  for (const auto& member : members_) {
    if (member->session.held())
      parts.push_back({&member->session, 0});
    else if (member->left() == 1 && member->reading)
      parts.push_back({&member->session, 1});
    else if (ready_to_read(*member))
      reading.push_back(member.get());
  }
  std::stable_sort(reading.begin(), reading.end(), [](Member* a, Member* b) { return a->left() < b->left(); });
  std::int64_t room = options_.prefill_chunk;
  for (std::size_t i = 0; i < reading.size() && room > 0; ++i) {
    const std::int64_t share = std::max<std::int64_t>(room / static_cast<std::int64_t>(reading.size() - i), 1);
    const std::int64_t rows = std::min(reading[i]->left(), share);
    parts.push_back({&reading[i]->session, rows});
    room -= rows;
  }
  return parts;
}

// Where a step fails, nobody has run: each goes alone, so that whose fault it is ends, and the others go on.
void Scheduler::run(const std::vector<StepPart>& parts) {
  try {
    tenon::step(composition_, parts, options_.prefill_chunk);
  } catch (const Error& error) {
    if (error.code == Code::bug) throw;
    if (parts.size() > 1) return run_each(parts);
    fail(*parts[0].session, error);
  }
}

void Scheduler::run_each(const std::vector<StepPart>& parts) {
  std::vector<std::pair<Session*, Error>> failed;
  for (const StepPart& part : parts) {
    // Who was held reads again, and catches up at once: it fails here, or is beyond what it failed at.
    const auto left = static_cast<std::int64_t>(part.session->tokens().size() - part.session->positions_run());
    const StepPart alone{part.session, part.rows > 0 ? part.rows : std::min(left, options_.prefill_chunk)};
    try {
      tenon::step(composition_, {&alone, 1});
    } catch (const Error& error) {
      if (error.code == Code::bug) throw;
      failed.emplace_back(part.session, error);
    }
  }
  const auto same = [&](const auto& one) { return one.second.message == failed[0].second.message; };
  if (failed.size() == parts.size() && std::all_of(failed.begin(), failed.end(), same)) throw failed[0].second;
  for (const auto& [session, error] : failed) fail(*session, error);
}

void Scheduler::fail(const Session& session, const Error& error) {
  for (const auto& member : members_) {
    if (&member->session != &session) continue;
    member->error = error;
    member->writing.end(Finish::interrupted);
  }
}

void Scheduler::write_next(Member& member) {
  if (member.left() > 0 || member.writing.finished()) return;
  if (member.session.room() < 1) return member.writing.end(Finish::context);
  try {
    const std::int32_t id = member.writing.take(member.session.logits());
    member.session.append({&id, 1});
    ++tokens_written_;
  } catch (const Error& error) {
    member.error = error;
    return member.writing.end(Finish::interrupted);
  }
  if (member.writing.made().tokens.size() == 1) member.first_token = Clock::now();
}

Answer Scheduler::answer(Member& member) const {
  Answer out;
  out.id = member.request.id;
  out.made = member.writing.made();
  out.error = member.error;
  out.prompt_tokens = static_cast<std::int64_t>(member.request.prompt.size());
  out.reused_tokens = member.reused;
  out.waited_seconds = seconds_between(member.submitted, member.admitted);
  out.seconds = seconds_between(member.submitted, Clock::now());
  if (!out.made.tokens.empty()) out.first_token_seconds = seconds_between(member.submitted, member.first_token);
  out.shares.resize(composition_.packages().size());
  const std::size_t first = member.request.prompt.size() - 1, last = first + out.made.tokens.size();
  for (std::size_t position = first; position < last; ++position) {
    const std::vector<float> w = member.session.strengths(position);
    for (std::size_t slot = 0; slot < w.size(); ++slot)
      out.shares[slot].mean_strength += w[slot] / static_cast<double>(last - first);
    ++out.shares[static_cast<std::size_t>(std::max_element(w.begin(), w.end()) - w.begin())].strongest;
  }
  return out;
}

// What it has run stays for those who begin alike.
void Scheduler::keep(Member& member) {
  reserved_bytes_ -= member.reserved_bytes;
  const auto run = static_cast<std::int64_t>(member.session.positions_run());
  if (!options_.reuse || run < kLeastReuse) return;
  const std::uint64_t bytes = limited() ? state_size_.bytes(run) : 0;
  reserved_bytes_ += bytes;
  finished_.push_back({member.session.fork(), member.faults, bytes}); // without what it read and did not run
  while (static_cast<std::int64_t>(finished_.size()) > options_.max_sequences) {
    reserved_bytes_ -= finished_.front().reserved_bytes;
    finished_.pop_front();
  }
}

std::vector<Answer> Scheduler::take_finished() {
  std::vector<Answer> out;
  for (auto& member : members_) {
    if (!member->writing.finished()) continue;
    out.push_back(answer(*member));
    keep(*member);
    member.reset();
  }
  std::erase(members_, nullptr);
  return out;
}

std::vector<Answer> Scheduler::step() {
  end_cancelled();
  std::vector<Answer> out = take_finished();
  const auto take_more = [&] {
    for (Answer& one : take_finished()) out.push_back(std::move(one));
  };
  admit();
  take_more(); // who asked for no token
  if (members_.empty()) return out;
  run(plan());
  for (const auto& member : members_) write_next(*member);
  take_more();
  return out;
}

} // namespace tenon
