#include "registry/manifest.hpp"

#include "registry/fields.hpp"
#include "registry/rules.hpp"

#include <algorithm>
#include <charconv>

namespace tenon {
namespace {

void require_schema(const Schema& schema, const json::value& value, const std::string& where) {
  const std::vector<std::string> problems = schema.problems(value);
  if (problems.empty()) return;
  std::string message = problems.front();
  for (std::size_t i = 1; i < std::min<std::size_t>(problems.size(), 3); ++i) message += "\n  " + problems[i];
  if (problems.size() > 3) message += "\n  and " + std::to_string(problems.size() - 3) + " more";
  throw Error(Code::integrity, rules::format(where), message);
}

Cut cut_at(const JsonReader& reader) {
  const Cut cut{reader.at("first").integer(), reader.at("last").integer()};
  if (cut.first >= cut.last) reader.fail("the cut " + cut.text() + " holds no layer");
  return cut;
}

json::object cut_json(const Cut& cut) { return {{"first", cut.first}, {"last", cut.last}}; }

std::vector<ManifestFile> files_at(const JsonReader& whole) {
  std::vector<ManifestFile> files;
  if (!whole.has("files")) return files;
  const JsonReader list = whole.at("files");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonReader file = list.at(i);
    files.push_back({file.at("path").string(), file.at("role").string()});
    if (const std::string problem = package_path_problem(files.back().path); !problem.empty())
      file.at("path").fail("this path cannot stand in a package: " + problem);
  }
  return files;
}

json::array files_json(const std::vector<ManifestFile>& files) {
  json::array list;
  for (const ManifestFile& file : files) list.push_back(json::object{{"path", file.path}, {"role", file.role}});
  return list;
}

std::vector<std::string> strings_at(const JsonReader& list) {
  std::vector<std::string> strings;
  for (std::size_t i = 0; i < list.size(); ++i) strings.push_back(list.at(i).string());
  return strings;
}

json::array strings_json(const std::vector<std::string>& strings) {
  json::array list;
  for (const std::string& text : strings) list.push_back(json::string(text));
  return list;
}

std::string line_of_member(const JsonReader& reader, std::string_view key) {
  return reader.has(key) ? line_at(reader.at(key)) : "";
}

std::optional<std::string> digest_of_member(const JsonReader& reader, std::string_view key) {
  if (!reader.has(key) || reader.at(key).value().is_null()) return std::nullopt;
  return digest_at(reader.at(key).at("digest"));
}

json::value digest_json(const std::optional<std::string>& digest) {
  if (!digest) return nullptr;
  return json::object{{"digest", *digest}};
}

bool is_context(std::string_view text) {
  if (text == "token" || text == "causal" || text == "recurrent") return true;
  if (!text.starts_with("window(") || !text.ends_with(")")) return false;
  text = text.substr(7, text.size() - 8);
  std::int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error == std::errc() && end == text.data() + text.size() && n >= 1;
}

ModelContract contract_at(const JsonReader& reader) {
  return {.model_digest = digest_at(reader.at("model_digest")),
          .base_digest = digest_at(reader.at("base_digest")),
          .cut = cut_at(reader.at("cut")),
          .width = reader.at("width").integer(),
          .tokenizer_digest = digest_at(reader.at("tokenizer_digest")),
          .dtype = reader.at("dtype").string(),
          .positions = reader.at("positions").string()};
}

json::object contract_json(const ModelContract& contract) {
  return {{"model_digest", contract.model_digest},
          {"base_digest", contract.base_digest},
          {"cut", cut_json(contract.cut)},
          {"width", contract.width},
          {"tokenizer_digest", contract.tokenizer_digest},
          {"dtype", contract.dtype},
          {"positions", contract.positions}};
}

std::vector<WeightRecord> weights_at(const JsonReader& list) {
  std::vector<WeightRecord> weights;
  weights.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonReader item = list.at(i);
    WeightRecord weight{item.at("name").string(), {}, item.at("dtype").string(), item.at("source").string()};
    const JsonReader shape = item.at("shape");
    for (std::size_t d = 0; d < shape.size(); ++d) weight.shape.push_back(shape.at(d).integer());
    if (!weight.source.starts_with("file:") && !weight.source.starts_with("base:"))
      item.at("source").fail("need file:<tensor> or base:<tensor>");
    weights.push_back(std::move(weight));
  }
  std::vector<std::string_view> names;
  names.reserve(weights.size());
  for (const WeightRecord& weight : weights) names.push_back(weight.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    list.fail("the weight \"" + std::string(*twice) + "\" is listed twice");
  return weights;
}

json::array weights_json(const std::vector<WeightRecord>& weights) {
  json::array list;
  for (const WeightRecord& weight : weights) {
    json::array shape(weight.shape.begin(), weight.shape.end());
    list.push_back(
        json::object{{"name", weight.name}, {"shape", shape}, {"dtype", weight.dtype}, {"source", weight.source}});
  }
  return list;
}

json::object header_json(Kind kind, const std::string& name, const Version& version, const std::string& summary,
                         const std::string& license) {
  json::object object{{"schema", 1}, {"kind", kind_name(kind)}, {"name", name}, {"version", version.text()}};
  if (!summary.empty()) object["summary"] = summary;
  if (!license.empty()) object["license"] = license;
  return object;
}

} // namespace

Cut Cut::parse(const std::string& text) {
  Cut cut;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, cut.first);
  if (first.ec == std::errc() && first.ptr != end && *first.ptr == ':')
    if (const auto last = std::from_chars(first.ptr + 1, end, cut.last); last.ec == std::errc() && last.ptr == end)
      return cut;
  throw Error(Code::usage, "cut", "found \"" + text + "\", need A:Z",
              "for example 10:20, first layer included, last excluded");
}

std::string Cut::text() const { return std::to_string(first) + ":" + std::to_string(last); }

ModelManifest ModelManifest::parse(const json::value& value, const std::string& where) {
  require_schema(model_schema(), value, where);
  const JsonReader reader(value, rules::format(where));
  ModelManifest m;
  m.name = name_at(reader.at("name"), Kind::model);
  m.version = version_at(reader.at("version"));
  m.summary = line_of_member(reader, "summary");
  m.license = line_of_member(reader, "license");
  m.family = reader.at("family").string();
  m.layers = reader.at("layers").integer();
  m.vocab = reader.at("vocab").integer();
  const JsonReader base = reader.at("base");
  m.contract = {.model_digest = digest_at(reader.at("model_digest")),
                .base_digest = digest_at(base.at("digest")),
                .cut = cut_at(reader.at("cut")),
                .width = reader.at("width").integer(),
                .tokenizer_digest = digest_at(reader.at("tokenizer").at("digest")),
                .dtype = reader.at("dtype").string(),
                .positions = reader.at("positions").string()};
  if (m.contract.cut.last > m.layers)
    reader.at("cut").fail("the cut " + m.contract.cut.text() + " reaches beyond " + std::to_string(m.layers) +
                          " layers");
  m.base_name = name_at(base.at("name"), Kind::expert);
  if (base.has("version")) m.base_version = version_at(base.at("version"));
  if (reader.has("calibration") && !reader.at("calibration").value().is_null()) {
    const JsonReader calibration = reader.at("calibration");
    m.calibration = {calibration.at("tokens").integer(), strings_at(calibration.at("kinds")),
                     digest_at(calibration.at("digest"))};
  }
  m.files = files_at(reader);
  m.config = reader.at("config").object();
  return m;
}

json::object ModelManifest::to_json() const {
  json::object object = header_json(Kind::model, name, version, summary, license);
  object["family"] = family;
  object["cut"] = cut_json(contract.cut);
  object["width"] = contract.width;
  object["layers"] = layers;
  object["vocab"] = vocab;
  object["dtype"] = contract.dtype;
  object["tokenizer"] = json::object{{"digest", contract.tokenizer_digest}};
  object["positions"] = contract.positions;
  object["model_digest"] = contract.model_digest;
  json::object base{{"name", base_name}, {"digest", contract.base_digest}};
  if (base_version) base["version"] = base_version->text();
  object["base"] = base;
  if (calibration)
    object["calibration"] = json::object{
        {"tokens", calibration->tokens}, {"kinds", strings_json(calibration->kinds)}, {"digest", calibration->digest}};
  object["files"] = files_json(files);
  object["config"] = config;
  return object;
}

ExpertManifest ExpertManifest::parse(const json::value& value, const std::string& where) {
  require_schema(expert_schema(), value, where);
  const JsonReader reader(value, rules::format(where));
  ExpertManifest m;
  m.name = name_at(reader.at("name"), Kind::expert);
  m.version = version_at(reader.at("version"));
  m.summary = line_of_member(reader, "summary");
  m.license = line_of_member(reader, "license");
  const auto range = Range::try_parse(reader.at("plugin").at("range").string());
  if (!range) reader.at("plugin").at("range").fail("need a version range, as ^1.2 is");
  m.plugin = {name_at(reader.at("plugin").at("name"), Kind::plugin), *range};
  m.architecture = name_at(reader.at("architecture"), Kind::plugin);
  m.config = reader.at("config").object();
  m.contract = contract_at(reader.at("contract"));
  m.context = reader.at("context").string();
  if (!is_context(m.context)) reader.at("context").fail("need token, window(n), causal or recurrent");
  m.uses = strings_at(reader.at("uses"));
  m.weights = weights_at(reader.at("weights"));
  m.row = digest_of_member(reader, "row");
  m.profile = digest_of_member(reader, "profile");
  if (reader.has("evidence")) m.evidence = reader.at("evidence").array();
  if (reader.has("provenance")) m.provenance = reader.at("provenance").object();
  m.files = files_at(reader);
  return m;
}

json::object ExpertManifest::to_json() const {
  json::object object = header_json(Kind::expert, name, version, summary, license);
  object["plugin"] = json::object{{"name", plugin.name}, {"range", plugin.range.text()}};
  object["architecture"] = architecture;
  object["config"] = config;
  object["contract"] = contract_json(contract);
  object["context"] = context;
  object["uses"] = strings_json(uses);
  object["weights"] = weights_json(weights);
  object["row"] = digest_json(row);
  object["profile"] = digest_json(profile);
  object["evidence"] = evidence;
  object["provenance"] = provenance;
  object["files"] = files_json(files);
  return object;
}

std::vector<Refusal> contract_refusals(const std::string& expert, const ModelContract& a, const std::string& model,
                                       const ModelContract& b) {
  std::vector<Refusal> refusals;
  const auto compare = [&](const char* rule, const char* what, const std::string& has, const std::string& needs,
                           const char* remedy) {
    if (has != needs)
      refusals.push_back({Code::incompatible, rule,
                          expert + ": made for " + what + " " + has + ", " + model + " has " + needs, remedy});
  };
  constexpr const char* retrain = "choose an expert made for this model, or train this one again for it";
  compare(rules::kModel, "model weights", a.model_digest, b.model_digest, retrain);
  compare(rules::kBase, "base weights", a.base_digest, b.base_digest, retrain);
  compare(rules::kContract, "cut", a.cut.text(), b.cut.text(), retrain);
  compare(rules::kContract, "width", std::to_string(a.width), std::to_string(b.width), retrain);
  compare(rules::kContract, "tokenizer", a.tokenizer_digest, b.tokenizer_digest, retrain);
  compare(rules::kContract, "dtype", a.dtype, b.dtype, retrain);
  compare(rules::kContract, "positions", a.positions, b.positions, retrain);
  return refusals;
}

} // namespace tenon
