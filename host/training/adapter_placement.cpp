// Which product of the middle each module of an adapter is.
#include "host/training/adapter_import.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>

namespace tenon {
namespace {

constexpr std::size_t kShown = 12; // more names than this help nobody

struct ProductName {
  std::string_view module, target, parameter;
};
constexpr std::array<ProductName, 7> kProducts{{{"self_attn.q_proj", "q", "attention.q"},
                                                {"self_attn.k_proj", "k", "attention.k"},
                                                {"self_attn.v_proj", "v", "attention.v"},
                                                {"self_attn.o_proj", "o", "attention.o"},
                                                {"mlp.gate_proj", "gate", "ffn.gate"},
                                                {"mlp.up_proj", "up", "ffn.up"},
                                                {"mlp.down_proj", "down", "ffn.down"}}};

// "model.layers.12.self_attn.q_proj" is layer 12, "self_attn.q_proj"; an adapter of the model without its head has no
// leading "model.".
struct Place {
  std::optional<std::int64_t> layer;
  std::string_view within; // of the layer, or of the model
};

Place place_of(std::string_view module) {
  if (module.starts_with("model.")) module.remove_prefix(6);
  constexpr std::string_view kLayers = "layers.";
  if (!module.starts_with(kLayers)) return {std::nullopt, module};
  const std::string_view rest = module.substr(kLayers.size());
  std::int64_t layer = 0;
  const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  const auto digits = static_cast<std::size_t>(end - rest.data());
  if (problem != std::errc() || digits >= rest.size() || rest[digits] != '.') return {std::nullopt, module};
  return {layer, rest.substr(digits + 1)};
}

bool is_end_of_model(std::string_view within) {
  for (const std::string_view end : {"embed_tokens", "lm_head", "norm"})
    if (within == end || (within.starts_with(end) && within[end.size()] == '.')) return true;
  return false;
}

const ProductName* product_of(std::string_view within) {
  for (const ProductName& product : kProducts)
    if (within == product.module) return &product;
  return nullptr;
}

std::string listed(const std::set<std::string>& names) {
  std::vector<std::string> shown;
  for (const std::string& name : names)
    if (shown.size() < kShown) shown.push_back(name);
  const std::size_t more = names.size() - shown.size();
  return fmt::format("{}{}", fmt::join(shown, ", "), more ? fmt::format(" and {} more", more) : "");
}

[[noreturn]] void refuse(const std::string& unit, const std::string& message, const char* remedy) {
  throw Error(Code::incompatible, unit, message, remedy);
}

// What cannot go into the middle: not in the model at all, in the middle but no product, elsewhere in the model.
struct Misplaced {
  std::set<std::string> unknown, fixed, outside;
};

void check(const Misplaced& found, const std::string& unit, const Cut& cut, std::int64_t layers) {
  if (!found.unknown.empty())
    refuse(unit,
           fmt::format("found {}; the model has layers 0:{}, each with q_proj, k_proj, v_proj, o_proj, gate_proj, "
                       "up_proj and down_proj",
                       listed(found.unknown), layers),
           "import the adapter for the model it was made for");
  if (!found.fixed.empty())
    refuse(unit, fmt::format("found {}: of the middle, only products can change", listed(found.fixed)),
           "train the adapter without biases, DoRA and modules_to_save");
  if (!found.outside.empty())
    refuse(unit, fmt::format("found {}, outside the middle (layers {}:{})", listed(found.outside), cut.first, cut.last),
           "leave them out with --middle-only (the expert is then less than the adapter), or import the model with a "
           "wider --cut");
}

} // namespace

AdapterPlacement place_adapter(const PeftAdapter& adapter, const Cut& cut, std::int64_t layers, bool middle_only) {
  AdapterPlacement out;
  std::set<std::string> outside, unknown, fixed;
  const auto in_model = [&](const Place& place) {
    return place.layer ? *place.layer >= 0 && *place.layer < layers : is_end_of_model(place.within);
  };
  const auto in_middle = [&](const Place& place) {
    return place.layer && *place.layer >= cut.first && *place.layer < cut.last;
  };
  for (const PeftProduct& source : adapter.products()) {
    const Place place = place_of(source.module);
    const ProductName* product = product_of(place.within);
    if (!in_model(place) || (place.layer && !product)) {
      unknown.insert(source.module);
    } else if (!in_middle(place)) {
      outside.insert(source.module);
    } else {
      const std::string block = fmt::format("blocks.{}.", *place.layer - cut.first);
      out.products.push_back({&source, block + std::string(product->target), block + std::string(product->parameter)});
    }
  }
  for (const std::string& tensor : adapter.others()) {
    const Place place = place_of(tensor);
    (!in_model(place) ? unknown : in_middle(place) ? fixed : outside).insert(tensor);
  }
  check(Misplaced{unknown, fixed, middle_only ? std::set<std::string>{} : outside}, adapter.name(), cut, layers);
  if (out.products.empty())
    refuse(adapter.name(), "found nothing that changes the middle", "import the model with another --cut");
  out.dropped.assign(outside.begin(), outside.end());
  return out;
}

json::object low_rank_config(const AdapterPlacement& placement, std::int64_t blocks) {
  // What most products have is the rule; the others are named.
  std::map<std::pair<std::int64_t, double>, std::int64_t> votes;
  std::map<std::string, std::int64_t> kinds;
  const auto alpha_of = [](const PeftProduct& source) { return source.scale * static_cast<double>(source.rank); };
  const auto kind_of = [](const std::string& target) { return target.substr(target.rfind('.') + 1); };
  for (const auto& product : placement.products) {
    ++votes[{product.source->rank, alpha_of(*product.source)}];
    ++kinds[kind_of(product.target)];
  }
  const auto& [rank, alpha] = std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) {
                                return a.second < b.second;
                              })->first;
  json::array targets;
  json::object ranks, alphas;
  std::set<std::string> named;
  for (const auto& product : placement.products) {
    const std::string kind = kind_of(product.target), name = kinds[kind] == blocks ? kind : product.target;
    if (named.insert(name).second) targets.emplace_back(name);
    if (product.source->rank != rank) ranks[product.target] = product.source->rank;
    if (alpha_of(*product.source) != alpha) alphas[product.target] = alpha_of(*product.source);
  }
  json::object config = {{"rank", rank}, {"alpha", alpha}, {"targets", targets}};
  if (!ranks.empty()) config["ranks"] = ranks;
  if (!alphas.empty()) config["alphas"] = alphas;
  return config;
}

} // namespace tenon
