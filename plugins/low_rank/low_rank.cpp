// tenon.low_rank: the base with a change of low rank in any of its products. The base's own weights are mapped and
// shared, so an expert costs its rank. Source: Hu et al. 2021, LoRA (arXiv 2106.09685).
#include <tenon/native.hpp>
#include <tenon/nn/low_rank.hpp>
#include <tenon/nn/transformer.hpp>

#include <array>
#include <optional>
#include <set>

namespace {

using tenon::nn::Linear;

// How the configuration may call the product "blocks.3.q": itself, or its kind in every block.
std::array<std::string, 2> names_of(const std::string& product) {
  return {product, product.substr(product.rfind('.') + 1)};
}

// Values of single products, in place of the one for all.
class Exceptions {
 public:
  Exceptions(tenon::Config table, std::string what) : table_(std::move(table)), what_(std::move(what)) {}

  std::optional<tenon::Config> find(const std::string& product) {
    for (const std::string& name : names_of(product)) {
      if (!table_.has(name)) continue;
      used_.insert(name);
      return table_.at(name);
    }
    return std::nullopt;
  }
  void check() const {
    if (used_.size() != table_.count())
      throw tenon::Failure(TENON_BAD_CONFIG, what_ + " has " + std::to_string(table_.count()) + " names, " +
                                                 std::to_string(used_.size()) + " of them are products that change");
  }

 private:
  tenon::Config table_;
  std::string what_;
  std::set<std::string> used_;
};

class LowRankExpert : public tenon::RunExpert {
 public:
  explicit LowRankExpert(const tenon::Setup& setup) : RunExpert(setup) {
    if (const std::string base = setup.base.at("architecture").text(); base != "tenon.transformer")
      throw tenon::Failure(TENON_BAD_CONFIG, "found a base of architecture " + base + ", need tenon.transformer");
    Exceptions ranks(setup.config.at("ranks"), "ranks"), alphas(setup.config.at("alphas"), "alphas");
    std::set<std::string> targets = strings(setup.config.at("targets")), unused = targets, kinds;
    const auto make = [&](const std::string& name, std::int64_t in, std::int64_t out) -> std::shared_ptr<Linear> {
      const auto [product, kind] = names_of(name);
      kinds.insert(kind);
      for (const std::string& target : {std::string("all"), product, kind}) {
        if (!targets.count(target)) continue;
        unused.erase(target);
        const std::int64_t rank = ranks.find(name).value_or(setup.config.at("rank")).integer();
        const double alpha = alphas.find(name).value_or(setup.config.at("alpha")).number();
        return std::make_shared<tenon::nn::LowRank>(in, out, rank, alpha / static_cast<double>(rank));
      }
      return std::make_shared<Linear>(in, out);
    };
    const auto options =
        tenon::nn::TransformerOptions::from(setup.base.at("config"), setup.model.at("width").integer());
    stack_ = std::make_shared<tenon::nn::Transformer>(options, make);
    if (!unused.empty())
      throw tenon::Failure(TENON_BAD_CONFIG, "the base has no product " + *unused.begin() + "; it has " +
                                                 joined(kinds) + ", each also as blocks.<i>.<name>");
    ranks.check();
    alphas.check();
    for (const auto& child : stack_->named_children()) register_module(child.key(), child.value());
    for (const auto& parameter : named_parameters())
      if (!own(parameter.key())) share(parameter.key(), parameter.key());
  }

  tenon::Tensor forward(const tenon::Input& in) override { return stack_->forward(in.h_NC, in.spans); }
  std::optional<tenon::Run> run() override { return tenon::Run{stack_->packed()}; }

  tenon::StateLayout state_layout() const override {
    tenon::StateLayout layout;
    stack_->add_state(layout);
    return layout;
  }

  // B is zero at birth, so that the expert starts as the base.
  void initialize(const tenon::Random& random) override {
    Expert::initialize(random);
    for (auto& parameter : named_parameters())
      if (ends_with(parameter.key(), ".b")) parameter.value().zero_();
  }

  void train(bool on = true) override {
    stack_->train(on);
    Expert::train(on);
  }

 private:
  static bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
  }
  static bool own(const std::string& name) { return ends_with(name, ".a") || ends_with(name, ".b"); }
  static std::set<std::string> strings(const tenon::Config& list) {
    std::set<std::string> out;
    for (std::uint64_t i = 0; i < list.count(); ++i) out.insert(list.at(i).text());
    return out;
  }

  static std::string joined(const std::set<std::string>& names) {
    std::string out;
    for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
    return out;
  }

  std::shared_ptr<tenon::nn::Transformer> stack_;
};

} // namespace

TENON_PLUGIN(tenon::architecture<LowRankExpert>("tenon.low_rank"));
