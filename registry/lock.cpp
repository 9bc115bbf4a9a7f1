#include "registry/lock.hpp"

#include "registry/base/files.hpp"
#include "registry/fields.hpp"
#include "registry/rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr std::int64_t kSchema = 1;
constexpr std::size_t kLimitBytes = std::size_t{16} << 20;
constexpr std::size_t kSlotsLimit = 4096;
constexpr std::int64_t kDecideAfterLimit = 1 << 20, kAverageOverLimit = 4096;
constexpr std::pair<const char*, const char*> kPolicyParameters[] = {{"margin", "sticky"},
                                                                     {"decide_after", "sequence"}};

// Every field is known: a misspelt one would be a wish that nobody fulfils.
void require_only(const JsonReader& reader, std::initializer_list<std::string_view> known) {
  for (const auto& member : reader.object())
    if (std::find(known.begin(), known.end(), std::string_view(member.key())) == known.end())
      reader.fail("the field \"" + std::string(member.key()).substr(0, 80) + "\" is unknown here");
}

void require_file_schema(const JsonReader& reader) {
  if (const std::int64_t schema = reader.at("schema").integer(); schema != kSchema)
    reader.at("schema").fail(fmt::format("found {}, need {}", schema, kSchema), schema > kSchema ? "update Tenon" : "");
}

std::string one_of(const JsonReader& reader, std::initializer_list<std::string_view> words) {
  std::string text = reader.string();
  if (std::find(words.begin(), words.end(), text) != words.end()) return text;
  std::string needed;
  for (std::string_view word : words) needed += (needed.empty() ? "" : ", ") + std::string(word);
  reader.fail(fmt::format("found \"{}\", need one of {}", text.substr(0, 80), needed));
}

PackageRequest request_at(const JsonReader& reader) {
  try {
    return PackageRequest::parse(reader.string());
  } catch (const Error& problem) {
    reader.fail(problem.message, problem.remedy);
  }
}

std::string compute_at(const JsonReader& reader) {
  require_only(reader, {"dtype"});
  return one_of(reader.at("dtype"), {"float32", "bf16", "int8", "int4", "stored"});
}

Routing routing_at(const JsonReader& reader) {
  Routing routing;
  routing.strengths =
      reader.has("strengths") ? one_of(reader.at("strengths"), {"softmax", "top_k", "sparsemax", "entmax"}) : "top_k";
  routing.policy = reader.has("policy") ? one_of(reader.at("policy"), {"token", "sticky", "sequence"}) : "token";
  routing.top_k = reader.integer("top_k", routing.top_k);
  routing.temperature = reader.number("temperature", routing.temperature);
  if (routing.top_k < 1 || routing.top_k > static_cast<std::int64_t>(kSlotsLimit))
    reader.at("top_k").fail(fmt::format("found {}, need 1 to {}", routing.top_k, kSlotsLimit));
  if (!(routing.temperature > 0) || !std::isfinite(routing.temperature))
    reader.at("temperature").fail("need a number above 0");
  for (const auto& [parameter, policy] : kPolicyParameters)
    if (reader.has(parameter) && routing.policy != policy)
      reader.at(parameter).fail(fmt::format("belongs to the policy \"{}\", found \"{}\"", policy, routing.policy));
  routing.average_over = reader.integer("average_over", routing.average_over);
  routing.margin = reader.number("margin", routing.margin);
  routing.decide_after = reader.integer("decide_after", routing.decide_after);
  if (const std::string problem = routing.problem(); !problem.empty()) reader.fail(problem);
  return routing;
}

LockedPlugin plugin_at(const JsonReader& reader) {
  require_only(reader, {"name", "version", "entry", "platform", "library"});
  return {name_at(reader.at("name")), version_at(reader.at("version")), digest_at(reader.at("entry")),
          line_at(reader.at("platform")), digest_at(reader.at("library"))};
}

LockedSlot slot_at(const JsonReader& reader, std::int64_t place) {
  require_only(reader, {"slot", "name", "version", "entry", "weights", "row", "plugin"});
  LockedSlot slot;
  slot.slot = reader.at("slot").integer();
  if (slot.slot != place)
    reader.at("slot").fail(fmt::format("found {}, need {}: slots are in order", slot.slot, place));
  slot.name = name_at(reader.at("name"));
  slot.version = version_at(reader.at("version"));
  slot.entry = digest_at(reader.at("entry"));
  const JsonReader weights = reader.at("weights");
  for (std::size_t i = 0; i < weights.array().size(); ++i) slot.weights.push_back(digest_at(weights.at(i)));
  if (!reader.at("row").value().is_null()) slot.row = digest_at(reader.at("row"));
  slot.plugin = plugin_at(reader.at("plugin"));
  return slot;
}

json::object slot_json(const LockedSlot& slot) {
  json::array weights;
  for (const std::string& digest : slot.weights) weights.push_back(json::string(digest));
  const LockedPlugin& plugin = slot.plugin;
  return {{"slot", slot.slot},
          {"name", slot.name},
          {"version", slot.version.text()},
          {"entry", slot.entry},
          {"weights", weights},
          {"row", slot.row ? json::value(*slot.row) : json::value(nullptr)},
          {"plugin", json::object{{"name", plugin.name},
                                  {"version", plugin.version.text()},
                                  {"entry", plugin.entry},
                                  {"platform", plugin.platform},
                                  {"library", plugin.library}}}};
}

LockedRouter router_at(const JsonReader& reader) {
  require_only(reader, {"strengths", "top_k", "temperature", "policy", "average_over", "margin", "decide_after",
                        "prior", "prior_set"});
  LockedRouter router{routing_at(reader), std::nullopt, ""};
  if (reader.has("prior") && !reader.at("prior").value().is_null()) {
    router.prior = reader.at("prior").number();
    router.prior_set = digest_at(reader.at("prior_set"));
  }
  return router;
}

json::object router_json(const LockedRouter& router) {
  json::object object = to_json(router.routing);
  object["prior"] = router.prior ? json::value(*router.prior) : json::value(nullptr);
  if (router.prior) object["prior_set"] = router.prior_set;
  return object;
}

} // namespace

std::string Routing::problem() const {
  if (average_over < 1 || average_over > kAverageOverLimit)
    return fmt::format("found average_over {}, need 1 to {}", average_over, kAverageOverLimit);
  if (policy == "sequence" && average_over != 1)
    return "the policy sequence averages over its first tokens alone, found average_over as well, need one of them";
  if (policy == "sticky" && strengths != "top_k")
    return fmt::format("the policy sticky keeps a set of top_k experts, found the strengths \"{}\", need top_k",
                       strengths);
  if (policy == "sticky" && !(margin >= 0 && std::isfinite(margin)))
    return fmt::format("found a margin of {}, need 0 or more", margin);
  if (policy == "sequence" && (decide_after < 2 || decide_after > kDecideAfterLimit))
    return fmt::format("found decide_after {}, need 2 to {}: the first token takes the base", decide_after,
                       kDecideAfterLimit);
  return "";
}

json::object to_json(const Routing& routing) {
  json::object object = {{"strengths", routing.strengths},
                         {"top_k", routing.top_k},
                         {"temperature", routing.temperature},
                         {"policy", routing.policy}};
  if (routing.average_over != 1) object["average_over"] = routing.average_over;
  if (routing.policy == "sticky") object["margin"] = routing.margin;
  if (routing.policy == "sequence") object["decide_after"] = routing.decide_after;
  return object;
}

Request Request::parse(const json::value& value, const std::string& where) {
  const JsonReader reader(value, rules::format(where));
  require_file_schema(reader);
  require_only(reader, {"schema", "model", "experts", "routing", "compute"});
  Request request;
  request.model = request_at(reader.at("model"));
  const JsonReader experts = reader.at("experts");
  if (experts.array().size() >= kSlotsLimit) experts.fail(fmt::format("need fewer than {} experts", kSlotsLimit));
  for (std::size_t i = 0; i < experts.size(); ++i) request.experts.push_back(request_at(experts.at(i)));
  if (reader.has("routing")) {
    require_only(reader.at("routing"),
                 {"strengths", "top_k", "temperature", "policy", "average_over", "margin", "decide_after"});
    request.routing = routing_at(reader.at("routing"));
  }
  if (reader.has("compute")) request.compute_dtype = compute_at(reader.at("compute"));
  return request;
}

json::object Request::to_json() const {
  json::array list;
  for (const PackageRequest& expert : experts) list.push_back(json::string(expert.text()));
  return {{"schema", kSchema},
          {"model", model.text()},
          {"experts", list},
          {"routing", tenon::to_json(routing)},
          {"compute", json::object{{"dtype", compute_dtype}}}};
}

Lock Lock::parse(const json::value& value, const std::string& where) {
  const JsonReader reader(value, rules::format(where));
  require_file_schema(reader);
  require_only(reader, {"schema", "model", "slots", "router", "compute"});
  Lock lock;
  const JsonReader model = reader.at("model");
  require_only(model, {"name", "version", "entry", "model_digest"});
  lock.model = {name_at(model.at("name")), version_at(model.at("version")), digest_at(model.at("entry")),
                digest_at(model.at("model_digest"))};
  const JsonReader slots = reader.at("slots");
  if (slots.array().empty() || slots.array().size() > kSlotsLimit)
    slots.fail(fmt::format("found {} slots, need the base and at most {} in all", slots.array().size(), kSlotsLimit));
  for (std::size_t i = 0; i < slots.size(); ++i)
    lock.slots.push_back(slot_at(slots.at(i), static_cast<std::int64_t>(i)));
  lock.router = router_at(reader.at("router"));
  lock.compute_dtype = compute_at(reader.at("compute"));
  return lock;
}

json::object Lock::to_json() const {
  json::array list;
  for (const LockedSlot& slot : slots) list.push_back(slot_json(slot));
  return {{"schema", kSchema},
          {"model", json::object{{"name", model.name},
                                 {"version", model.version.text()},
                                 {"entry", model.entry},
                                 {"model_digest", model.model_digest}}},
          {"slots", list},
          {"router", router_json(router)},
          {"compute", json::object{{"dtype", compute_dtype}}}};
}

std::string Lock::set_digest() const {
  json::array rows;
  for (const LockedSlot& slot : slots)
    rows.push_back(json::object{{"entry", slot.entry}, {"row", slot.row.value_or("")}});
  return digest_of_text(canonical_json(
      json::object{{"model", model.entry}, {"slots", rows}, {"routing", tenon::to_json(router.routing)}}));
}

Request read_request(const std::filesystem::path& path) {
  return Request::parse(read_json(path, kLimitBytes), path.string());
}

void write_request(const std::filesystem::path& path, const Request& request) {
  write_file(path, pretty_json(request.to_json()));
}

Lock read_lock(const std::filesystem::path& path) { return Lock::parse(read_json(path, kLimitBytes), path.string()); }

void write_lock(const std::filesystem::path& path, const Lock& lock) { write_file(path, pretty_json(lock.to_json())); }

} // namespace tenon
