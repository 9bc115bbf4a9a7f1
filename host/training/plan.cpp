#include "host/training/plan.hpp"

#include "registry/base/error.hpp"
#include "registry/base/schema.hpp"
#include "registry/base/sha256.hpp"

namespace tenon {
namespace {

// More lines than a person reads help nobody.
constexpr std::size_t kProblemsShown = 5;

json::value checked(const json::value& value, const std::string& where) {
  static const Schema schema(plan_schema(), "the schema of a training plan");
  const json::value full = schema.with_defaults(value);
  const std::vector<std::string> problems = schema.problems(full);
  if (problems.empty()) return full;
  std::string text;
  for (std::size_t i = 0; i < std::min(problems.size(), kProblemsShown); ++i) text += (i ? "; " : "") + problems[i];
  throw Error(Code::usage, where, text, "see the fields: tenon expert train --help");
}

RowObjective objective_of(const std::string& text) {
  return text == "ntp" ? RowObjective::ntp : text == "joint" ? RowObjective::joint : RowObjective::domain;
}

TrainingPlan::Data read_data(const JsonReader& reader) {
  TrainingPlan::Data data{};
  for (std::size_t i = 0; i < reader.at("paths").size(); ++i) data.paths.push_back(reader.at("paths").at(i).string());
  data.chat = reader.at("format").string() == "chat";
  data.field = reader.at("field").string();
  data.chat_template = reader.at("template").string();
  if (!data.chat && !data.chat_template.empty())
    throw Error(Code::usage, "training plan",
                "found data.template=" + data.chat_template + " and data.format=text, which has no template",
                "for dialogues: --set data.format=chat; for text leave it out");
  data.sequence_length = reader.at("sequence_length").integer();
  data.held_out_blocks = reader.at("held_out_blocks").integer();
  data.held_out_share = reader.at("held_out_share").number();
  data.max_tokens = reader.at("max_tokens").integer();
  data.seed = reader.at("seed").integer();
  return data;
}

TrainingPlan::Train read_train(const JsonReader& reader) {
  TrainingPlan::Train train{};
  train.steps = reader.at("steps").integer();
  train.batch = reader.at("batch").integer();
  train.accumulate = reader.at("accumulate").integer();
  train.warmup = reader.at("warmup").integer();
  train.general_every = reader.at("general_every").integer();
  train.seed = reader.at("seed").integer();
  train.learning_rate = reader.at("learning_rate").number();
  train.floor = reader.at("floor").number();
  train.weight_decay = reader.at("weight_decay").number();
  train.clip = reader.at("clip").number();
  train.kl_weight = reader.at("kl_weight").number();
  train.alone_share = reader.at("alone_share").number();
  train.bfloat16 = reader.at("dtype").string() == "bfloat16";
  return train;
}

std::optional<TrainingPlan::From> read_from(const JsonReader& reader) {
  if (!reader.has("from")) return std::nullopt;
  const JsonReader from = reader.at("from");
  return TrainingPlan::From{from.at("model").string(), Cut::parse(from.at("layers").string())};
}

// Whether the schema says that this field is text: a summary of "2026" is no number.
bool is_text(const json::object& schema, std::string_view path) {
  const auto dot = path.find('.');
  const json::value* fields = schema.if_contains("properties");
  const json::value* field = fields ? fields->as_object().if_contains(path.substr(0, dot)) : nullptr;
  if (!field) return false;
  if (dot != std::string_view::npos) return is_text(field->as_object(), path.substr(dot + 1));
  const json::value* type = field->as_object().if_contains("type");
  return type && *type == json::value("string");
}

// JSON where it is JSON, and text otherwise.
json::value read_value(const std::string& path, const std::string& text) {
  try {
    json::value value = parse_json(text, path);
    if (value.is_string() || !is_text(plan_schema(), path)) return value;
  } catch (const Error&) { // then it is text
  }
  return json::string(text);
}

} // namespace

TrainingPlan TrainingPlan::parse(const json::value& value, const std::string& where) {
  const json::value full = checked(value, where);
  const JsonReader reader(full, where);
  TrainingPlan plan{};
  plan.json = full.as_object();
  plan.given = value.as_object();
  plan.architecture = reader.at("architecture").string();
  plan.model = reader.at("model").string();
  plan.plugin = reader.at("plugin").string();
  plan.config = reader.at("config").object();
  plan.version = reader.at("version").string();
  plan.summary = reader.at("summary").string();
  plan.license = reader.at("license").string();
  plan.from = read_from(reader);
  plan.data = read_data(reader.at("data"));
  plan.general.blocks = reader.at("general").at("blocks").integer();
  const JsonReader row = reader.at("row"), streams = reader.at("streams");
  plan.row = {objective_of(row.at("objective").string()), row.at("l2").number(), row.at("learning_rate").number(),
              row.at("max_positions").integer()};
  plan.train = read_train(reader.at("train"));
  plan.stitch = {reader.at("stitch").at("ridge").number(), reader.at("stitch").at("max_positions").integer()};
  const JsonReader pass = reader.at("pass");
  plan.pass = {pass.at("blocks").integer(), pass.at("held_back_blocks").integer()};
  plan.streams = {streams.at("dtype").string() == "bfloat16", streams.at("budget_gib").number()};
  plan.checkpoint_every = reader.at("checkpoint_every").integer();
  plan.evaluate_every = reader.at("evaluate_every").integer();
  plan.evaluate_blocks = reader.at("evaluate_blocks").integer();
  return plan;
}

std::string TrainingPlan::digest() const {
  json::object kept = json;
  kept.at("data").as_object().erase("paths");
  kept.erase("streams"); // where outputs are cached changes nothing, unless they are rounded
  kept["streams"] = {{"dtype", streams.bfloat16 ? "bfloat16" : "float32"}};
  return "sha256:" + sha256(canonical_json(kept));
}

void TrainingPlan::check_used(bool learns_in_a_pass) const {
  const auto refuse = [&](const std::string& field, const std::string& remedy) {
    throw Error(Code::usage, "training plan",
                "found " + field + ", which " + architecture + " does not use: it learns " +
                    (learns_in_a_pass ? "in one pass over its text" : "by gradient steps"),
                remedy);
  };
  const auto section = [&](const char* name) {
    const json::value* found = given.if_contains(name);
    return found && found->is_object() ? found->get_object() : json::object();
  };
  if (!learns_in_a_pass) {
    for (const auto& field : section("pass")) refuse("pass." + std::string(field.key()), "see train.steps");
    return;
  }
  for (const auto& field : section("train"))
    if (field.key() != "seed") refuse("train." + std::string(field.key()), "pass.blocks says how much text it sees");
  for (const char* field : {"checkpoint_every", "evaluate_every"})
    if (given.contains(field)) refuse(field, "leave it out");
  if (row.objective != RowObjective::domain)
    refuse("row.objective=" + std::string(json.at("row").at("objective").as_string()),
           "leave it at domain: the other rows are trained by gradient steps");
}

json::object TrainingPlan::used(bool learns_in_a_pass) const {
  json::object out = json;
  if (!learns_in_a_pass) {
    out.erase("pass");
    return out;
  }
  out["train"] = {{"seed", train.seed}};
  for (const char* field : {"checkpoint_every", "evaluate_every"}) out.erase(field);
  return out;
}

bool TrainingPlan::is_general_step(std::int64_t step) const {
  return train.general_every > 0 && train.kl_weight > 0 && step % train.general_every == train.general_every - 1;
}

std::int64_t TrainingPlan::general_steps_before(std::int64_t step) const {
  return train.general_every > 0 && train.kl_weight > 0 ? step / train.general_every : 0;
}

std::int64_t TrainingPlan::domain_sequences() const {
  return (train.steps - general_steps_before(train.steps)) * train.batch * train.accumulate;
}

void set_field(json::object& plan, std::string_view assignment) {
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw Error(Code::usage, "--set", "found \"" + std::string(assignment) + "\", need path=value",
                "for instance: --set train.steps=500, or --set rank=16 for the expert's own configuration");
  std::string path(assignment.substr(0, equals));
  if (path.find('.') == std::string::npos && !plan_schema().at("properties").as_object().contains(path))
    path = "config." + path;
  const json::value value = read_value(path, std::string(assignment.substr(equals + 1)));
  json::object* object = &plan;
  for (std::size_t start = 0;;) {
    const auto dot = path.find('.', start);
    const std::string key = path.substr(start, dot - start);
    if (key.empty()) throw Error(Code::usage, "--set", "found \"" + path + "\", need names between single dots");
    if (dot == std::string::npos) {
      (*object)[key] = value;
      return;
    }
    json::value& next = (*object)[key];
    if (next.is_null()) next = json::object();
    if (!next.is_object()) throw Error(Code::usage, "--set", path.substr(0, dot) + " holds no fields, it is a value");
    object = &next.get_object();
    start = dot + 1;
  }
}

} // namespace tenon
