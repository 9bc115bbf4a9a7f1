#include "host/report/lineage.hpp"

#include "host/evaluation/results.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>

namespace tenon {
namespace {

using Facts = std::vector<std::pair<std::string, std::string>>;

void add(Facts& facts, const std::string& what, const std::string& value) {
  if (!value.empty()) facts.emplace_back(what, value);
}

std::string text_of(const json::value& value) {
  return value.is_string() ? std::string(value.as_string()) : json::serialize(value);
}

// The members of provenance that tell where an expert comes from, whoever wrote them.
void add_provenance(Facts& facts, const json::object& provenance) {
  for (const auto& [key, value] : provenance) {
    if (key == "plan" || value.is_null()) continue; // the plan's digest stands among the others
    if (key == "trained_from" && value.is_object()) {
      for (const auto& [what, digest] : value.as_object())
        add(facts, "trained from: " + std::string(what), text_of(digest));
    } else if (key == "text" && value.is_object() && value.as_object().contains("names")) {
      add(facts, "text", text_of(value.as_object().at("names")));
    } else {
      std::string what(key);
      std::replace(what.begin(), what.end(), '_', ' ');
      add(facts, what, text_of(value));
    }
  }
}

void add_evidence(Facts& facts, const json::array& evidence) {
  for (const json::value& one : evidence) add(facts, "its author measured", text_of(one));
}

LineageCard card_of(const std::string& part, const ExpertPackage& package) {
  LineageCard card{part, package.entry.title(), {}};
  Facts& facts = card.facts;
  add(facts, "architecture", package.manifest.architecture);
  if (!package.manifest.config.empty()) add(facts, "configuration", json::serialize(package.manifest.config));
  add(facts, "plugin", package.manifest.plugin.text());
  add(facts, "license", package.manifest.license);
  add(facts, "published", package.entry.published);
  add(facts, "entry", package.entry.digest);
  for (const FileRecord& file : package.entry.files)
    add(facts, file.path, file.digest + ", " + bytes_text(static_cast<std::int64_t>(file.size_bytes)));
  add(facts, "made for model", package.manifest.contract.model_digest);
  add(facts, "made for base", package.manifest.contract.base_digest);
  add_provenance(facts, package.manifest.provenance);
  add_evidence(facts, package.manifest.evidence);
  return card;
}

LineageCard model_card(const Composition& composition) {
  const ModelManifest& manifest = composition.model().manifest();
  LineageCard card{"model", manifest.name + " " + manifest.version.text(), {}};
  Facts& facts = card.facts;
  add(facts, "family", manifest.family);
  add(facts, "layers",
      fmt::format("{}, cut {}:{}, width {}", manifest.layers, manifest.contract.cut.first, manifest.contract.cut.last,
                  manifest.contract.width));
  add(facts, "license", manifest.license);
  add(facts, "entry", composition.lock().model.entry);
  add(facts, "trunk and head", manifest.contract.model_digest);
  add(facts, "base", manifest.contract.base_digest);
  add(facts, "tokenizer", manifest.contract.tokenizer_digest);
  if (manifest.calibration) add(facts, "calibration text", manifest.calibration->digest);
  return card;
}

LineageCard router_card(const Composition& composition) {
  const Routing& routing = composition.router().routing();
  LineageCard card{
      "router", routing.strengths == "top_k" ? fmt::format("top-{}", routing.top_k) : routing.strengths, {}};
  add(card.facts, "temperature", fmt::format("{}", routing.temperature));
  add(card.facts, "policy", routing.policy);
  if (routing.average_over > 1)
    add(card.facts, "scores averaged over", fmt::format("{} positions", routing.average_over));
  add(card.facts, "prior of the base", fmt::format("{:.4f}", composition.router().prior()));
  add(card.facts, "fitted for the set", composition.lock().router.prior_set);
  add(card.facts, "compute", composition.lock().compute_dtype);
  return card;
}

} // namespace

std::vector<LineageCard> lineage_of(const Composition& composition, const std::vector<VersusExpert>& versus) {
  std::vector<LineageCard> out = {model_card(composition), router_card(composition)};
  const Lock& lock = composition.lock();
  for (std::size_t slot = 0; slot < composition.packages().size(); ++slot) {
    out.push_back(card_of(fmt::format("slot {}", slot), composition.packages()[slot]));
    if (slot >= lock.slots.size()) continue; // a model alone has no lock
    const LockedPlugin& plugin = lock.slots[slot].plugin;
    add(out.back().facts, "locked plugin", plugin.name + " " + plugin.version.text() + ", " + plugin.platform);
    add(out.back().facts, "plugin entry", plugin.entry);
    add(out.back().facts, "plugin library", plugin.library);
  }
  for (const VersusExpert& one : versus) out.push_back(card_of("compared with as " + one.name, one.package));
  return out;
}

} // namespace tenon
