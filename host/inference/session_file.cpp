#include "host/inference/session_file.hpp"

#include "host/inference/compact_tensor.hpp"
#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <cstring>

namespace tenon {
namespace {

constexpr std::int64_t kSchema = 2;
const char* const kKey = "tenon.session";
const char* const kDigestKey = "tenon.session.sha256";

struct NamedTensor {
  std::string name;
  at::Tensor value;
};

template <class AnySequence>
auto modules_of(AnySequence& sequence) {
  std::vector<std::pair<std::string, decltype(&sequence.trunk)>> out = {{"trunk", &sequence.trunk},
                                                                        {"head", &sequence.head}};
  for (std::size_t i = 0; i < sequence.experts.size(); ++i)
    out.emplace_back("expert." + std::to_string(i), &sequence.experts[i]);
  return out;
}

std::string slot_name(const std::string& module, std::size_t slot) { return module + "/" + std::to_string(slot); }

std::vector<std::size_t> shape_of(std::int64_t rows, const std::vector<std::int64_t>& row) {
  std::vector<std::size_t> out;
  if (rows >= 0) out.push_back(static_cast<std::size_t>(rows));
  for (const std::int64_t extent : row) out.push_back(static_cast<std::size_t>(extent));
  return out;
}

std::int64_t number_in(const JsonReader& reader, std::int64_t least, std::int64_t most) {
  const std::int64_t found = reader.integer();
  if (found < least || found > most) reader.fail(fmt::format("found {}, need {} to {}", found, least, most));
  return found;
}

// A buffer that never held a row does not know its width.
at::Tensor rows_of(const RowBuffer& buffer, std::int64_t rows, std::int64_t width) {
  return rows > 0 ? buffer.rows(0, rows) : at::empty({0, width});
}

std::string steps_name(const std::string& name) { return name + ".steps"; }

Dtype dtype_of(const at::Tensor& value) {
  switch (value.scalar_type()) {
    case at::kInt: return Dtype::I32;
    case at::kChar: return Dtype::I8;
    case at::kBFloat16: return Dtype::BF16;
    default: return Dtype::F32;
  }
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

} // namespace

bool is_session(const std::filesystem::path& path) {
  try {
    return SafetensorsFile(path).metadata().contains("tenon.session");
  } catch (const Error&) {
    return false;
  }
}

std::string session_digest(std::string_view head, std::span<const TensorView> tensors) {
  std::vector<const TensorView*> ordered;
  for (const TensorView& one : tensors) ordered.push_back(&one);
  std::sort(ordered.begin(), ordered.end(), [](auto* a, auto* b) { return a->name < b->name; });
  Sha256 digest;
  digest.field(head);
  for (const TensorView* one : ordered)
    digest.field(one->name).field(dtype_name(one->dtype)).field(text_of(one->bytes));
  return digest.hex();
}

class SessionFile {
 public:
  static void save(const Session& session, const std::filesystem::path& path, const json::object& note) {
    const std::int64_t run = session.strengths_.length();
    const auto experts = static_cast<std::int64_t>(session.composition().packages().size());
    const std::int64_t width = session.composition().model().shape().width;
    Sequence sequence = session.sequence_.fork(); // shares its memory
    sequence.truncate(run);
    at::Tensor tokens_N = at::empty({static_cast<std::int64_t>(session.tokens_.size())}, at::kInt);
    std::copy(session.tokens_.begin(), session.tokens_.end(), tokens_N.data_ptr<std::int32_t>());
    std::vector<NamedTensor> tensors = {{"tokens", tokens_N},
                                        {"strengths", rows_of(session.strengths_, run, experts)},
                                        {"h", rows_of(sequence.h, run, width)},
                                        {"base", rows_of(sequence.base, sequence.base.length(), width)}};
    for (const auto& [name, module] : modules_of(sequence))
      for (std::size_t slot = 0; slot < module->slots(); ++slot)
        tensors.push_back({slot_name(name, slot), module->value(slot)});
    write(path, tensors, head(session, sequence, run, note));
  }

  static SavedSession restore(Composition& composition, const SafetensorsFile& file, SessionOptions options) {
    const json::value head = head_of(file);
    const JsonReader reader(head, file.name() + " (" + kKey + ")");
    check_whole(file, reader);
    check_composition(composition, reader, file.name());
    options.excluded = excluded(composition, reader.at("excluded"));
    Session session(composition, std::move(options));
    session.append(tokens(file));
    const std::int64_t run = number_in(reader.at("run"), 0, static_cast<std::int64_t>(session.tokens_.size()));
    const std::int64_t experts = static_cast<std::int64_t>(composition.packages().size()),
                       width = composition.model().shape().width;
    session.strengths_.append(tensor(file, "strengths", run, {experts}));
    session.sequence_.h.append(tensor(file, "h", run, {width}));
    session.sequence_.base.append(tensor(file, "base", base_rows(file, run), {width}));
    restore_policy(reader.at("policy"), session.sequence_.policy, run, experts);
    for (const auto& [name, module] : modules_of(session.sequence_))
      restore_module(file, reader.at("modules").at(name), name, *module, run);
    check_base(composition.experts(), session.sequence_, file.name());
    return {std::move(session), reader.at("note").object()};
  }

 private:
  static json::object head(const Session& session, const Sequence& sequence, std::int64_t run,
                           const json::object& note) {
    json::object modules;
    for (const auto& [name, module] : modules_of(sequence))
      modules[name] = {{"first", module->first()}, {"done", module->done()}};
    json::array policy, without;
    for (const PolicyState::Kept& kept : sequence.policy.kept)
      policy.push_back(json::object{{"position", kept.position}, {"slots", json::value_from(kept.slots)}});
    for (std::size_t slot = 0; slot < sequence.excluded.size(); ++slot)
      if (sequence.excluded[slot]) without.push_back(slot);
    return {{"schema", kSchema},  {"composition", session.composition().state_digest()},
            {"run", run},         {"excluded", without},
            {"modules", modules}, {"policy", policy},
            {"note", note},       {"made_with", session.composition().state_facts()}};
  }

  static void write(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                    const json::object& head) {
    std::vector<at::Tensor> values; // which the views borrow
    std::vector<TensorView> views;
    const auto add = [&](const std::string& name, const at::Tensor& value) {
      values.push_back(value);
      views.push_back({name,
                       dtype_of(value),
                       shape_of(-1, value.sizes().vec()),
                       {static_cast<const std::byte*>(value.data_ptr()), value.nbytes()}});
    };
    for (const NamedTensor& one : tensors) {
      const CompactTensor form = compact(one.value);
      add(one.name, form.numbers);
      if (form.steps.defined()) add(steps_name(one.name), form.steps);
    }
    const std::string text = json::serialize(head);
    write_safetensors(path, views, {{kKey, text}, {kDigestKey, session_digest(text, views)}});
  }

  static json::value head_of(const SafetensorsFile& file) {
    const auto found = file.metadata().find(kKey);
    if (found == file.metadata().end())
      throw Error(Code::incompatible, file.name(), "found no session in it, need what --save or --save-session wrote");
    return parse_json(found->second, file.name() + " (" + kKey + ")");
  }

  static void check_whole(const SafetensorsFile& file, const JsonReader& head) {
    if (const std::int64_t schema = head.at("schema").integer(); schema != kSchema)
      throw Error(Code::incompatible, file.name(),
                  fmt::format("found a session of schema {}, need {}", schema, kSchema), "begin a new session");
    const auto said = file.metadata().find(kDigestKey);
    const std::string need = said == file.metadata().end() ? "none" : said->second,
                      found = session_digest(file.metadata().at(kKey), file.tensors());
    if (found != need)
      throw Error(Code::integrity, file.name(),
                  fmt::format("the file is damaged: found content of digest {}, it says {}", found, need.substr(0, 80)),
                  "bring back a sound copy, or begin a new session");
  }

  static void check_composition(const Composition& composition, const JsonReader& head, const std::string& name) {
    const std::string made = head.at("composition").string(), here = composition.state_digest();
    if (made == here) return;
    const std::string named = head.has("made_with") ? differences(head.at("made_with"), composition.state_facts()) : "";
    throw Error(Code::incompatible, name,
                named.empty()
                    ? fmt::format("found a session of the composition {}, this one is {}", made.substr(0, 80), here)
                    : "found a session of another composition: " + named,
                "open it with the composition, versions, --compute and TENON_KEYS it was saved with, or begin a new "
                "session");
  }

  // "keys: \"int8\" then, \"bf16\" now; ..."
  static std::string differences(const JsonReader& then, const json::object& now) {
    std::string out;
    for (const auto& member : now) {
      if (!then.has(member.key()) || then.at(member.key()).value() == member.value()) continue;
      out +=
          fmt::format("{}{}: {} then, {} now", out.empty() ? "" : "; ", std::string_view(member.key()),
                      json::serialize(then.at(member.key()).value()).substr(0, 400), json::serialize(member.value()));
    }
    return out;
  }

  static std::vector<bool> excluded(const Composition& composition, const JsonReader& slots) {
    if (slots.array().empty()) return {};
    std::vector<bool> out(composition.packages().size(), false);
    for (std::size_t i = 0; i < slots.array().size(); ++i)
      out[static_cast<std::size_t>(number_in(slots.at(i), 1, static_cast<std::int64_t>(out.size()) - 1))] = true;
    return out;
  }

  static std::vector<std::int32_t> tokens(const SafetensorsFile& file) {
    const TensorView& view = file.at("tokens");
    if (view.dtype != Dtype::I32 || view.shape.size() != 1)
      throw Error(Code::integrity, file.name(), "tokens: need a row of I32");
    std::vector<std::int32_t> out(view.shape[0]);
    if (!out.empty()) std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
    return out;
  }

  // rows: -1 for a tensor that is no rows.
  static at::Tensor tensor(const SafetensorsFile& file, const std::string& name, std::int64_t rows,
                           const std::vector<std::int64_t>& row) {
    const TensorView& view = file.at(name);
    const std::vector<std::size_t> need = shape_of(rows, row);
    switch (view.shape == need ? view.dtype : Dtype::BOOL) {
      case Dtype::F32: return copied(view, at::kFloat);
      case Dtype::BF16: return widened({copied(view, at::kBFloat16), {}});
      case Dtype::I8: return widened({copied(view, at::kChar), steps(file, view)});
      default:
        throw Error(Code::integrity, file.name(),
                    fmt::format("the tensor {} is {} [{}], need F32, BF16 or I8 [{}]", name, dtype_name(view.dtype),
                                fmt::join(view.shape, ","), fmt::join(need, ",")));
    }
  }

  // Of a tensor of I8: one for each of as many groups as its last width divides into.
  static at::Tensor steps(const SafetensorsFile& file, const TensorView& numbers) {
    const TensorView& view = file.at(steps_name(numbers.name));
    std::vector<std::size_t> need = numbers.shape;
    const std::size_t groups = view.shape.empty() ? 0 : view.shape.back();
    const bool even = !need.empty() && groups > 0 && need.back() % groups == 0;
    if (even) need.back() = groups;
    if (!even || view.dtype != Dtype::F32 || view.shape != need)
      throw Error(Code::integrity, file.name(),
                  fmt::format("the tensor {} is {} [{}], need F32, one for each group of {}", view.name,
                              dtype_name(view.dtype), fmt::join(view.shape, ","), numbers.name));
    return copied(view, at::kFloat);
  }

  static at::Tensor copied(const TensorView& view, at::ScalarType type) {
    at::Tensor out = at::empty(std::vector<std::int64_t>(view.shape.begin(), view.shape.end()), type);
    if (!view.bytes.empty()) std::memcpy(out.data_ptr(), view.bytes.data(), view.bytes.size());
    return out;
  }

  static std::int64_t base_rows(const SafetensorsFile& file, std::int64_t run) {
    const std::vector<std::size_t>& shape = file.at("base").shape;
    if (shape.empty() || shape[0] > static_cast<std::size_t>(run))
      throw Error(Code::integrity, file.name(), fmt::format("base: need at most {} rows, for what was run", run));
    return static_cast<std::int64_t>(shape[0]);
  }

  // Who stands on the base finds its outputs as far as the base has been run.
  static void check_base(const Experts& experts, const Sequence& sequence, const std::string& name) {
    const std::int64_t rows = sequence.base.length(), done = sequence.experts[0].done();
    if (experts.keep_base() ? rows < done : rows > 0)
      throw Error(Code::integrity, name,
                  fmt::format("found {} rows of base, need {}", rows,
                              experts.keep_base() ? fmt::format("{} or more", done) : "none: nobody stands on it"));
  }

  static void restore_policy(const JsonReader& kept, PolicyState& policy, std::int64_t run, std::int64_t experts) {
    std::int64_t least = 0;
    for (std::size_t i = 0; i < kept.array().size(); ++i) {
      const JsonReader one = kept.at(i), slots = one.at("slots");
      PolicyState::Kept change{number_in(one.at("position"), least, run - 1), {}};
      for (std::size_t k = 0; k < slots.array().size(); ++k)
        change.slots.push_back(number_in(slots.at(k), k == 0 ? 0 : change.slots.back() + 1, experts - 1));
      if (change.slots.empty()) slots.fail("found no slot, need at least one");
      least = change.position + 1;
      policy.kept.push_back(std::move(change));
    }
  }

  // Trunk and head have run all; an expert any stretch that ends there or before.
  static void restore_module(const SafetensorsFile& file, const JsonReader& head, const std::string& name,
                             ModuleState& module, std::int64_t run) {
    const bool all = name == "trunk" || name == "head";
    const std::int64_t done = number_in(head.at("done"), all ? run : 0, run),
                       first = number_in(head.at("first"), 0, all ? 0 : done);
    std::vector<at::Tensor> values;
    for (std::size_t slot = 0; slot < module.slots(); ++slot) {
      const StateTensor& spec = module.spec(slot);
      values.push_back(tensor(file, slot_name(name, slot), spec.per_position ? done - first : -1, spec.shape));
    }
    module.restore(first, done, values);
  }
};

void save_session(const Session& session, const std::filesystem::path& path, const json::object& note) {
  SessionFile::save(session, path, note);
}

SavedSession restore_session(Composition& composition, const std::filesystem::path& path, SessionOptions options) {
  return restore_session(composition, SafetensorsFile(path), std::move(options));
}

SavedSession restore_session(Composition& composition, const SafetensorsFile& file, SessionOptions options) {
  return SessionFile::restore(composition, file, std::move(options));
}

} // namespace tenon
