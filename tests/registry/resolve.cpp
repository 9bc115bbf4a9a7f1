#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;

namespace {

std::vector<Refusal> refusals(const World& world, const Request& request, const std::string& platform = kPlatform) {
  const Resolution resolution = resolve(world.registry, request, platform);
  CHECK(resolution.lock.has_value() == resolution.refusals.empty());
  return resolution.refusals;
}

bool mentions(const Refusal& refusal, const std::string& text) {
  return refusal.message.find(text) != std::string::npos;
}

} // namespace

TEST_CASE("a request is resolved to the base in slot 0 and the experts in the order asked for") {
  World world;
  const Lock lock = resolve(world.registry, world.request(), kPlatform).value();
  CHECK(lock.model.name == "tiny");
  CHECK(lock.model.model_digest == contract().model_digest);
  REQUIRE(lock.slots.size() == 3);
  CHECK(lock.slots[0].name == "tiny-base");
  CHECK_FALSE(lock.slots[0].row);
  CHECK(lock.slots[1].name == "legal");
  CHECK(lock.slots[1].version.text() == "1.1.0");
  CHECK(lock.slots[1].row == digest("row of legal"));
  CHECK(lock.slots[1].weights == std::vector<std::string>{digest("weights of legal 1.1.0")});
  CHECK(lock.slots[2].name == "hr");
  for (const LockedSlot& slot : lock.slots) {
    CHECK(slot.plugin.name == "acme.mlp");
    CHECK(slot.plugin.version.text() == "1.2.0");
    CHECK(slot.plugin.platform == kPlatform);
    CHECK(slot.plugin.library == digest("\x7f"
                                        "ELF of acme.mlp1.2.0" +
                                        kPlatform));
  }
  CHECK_FALSE(lock.router.prior);
  CHECK(check_locked(world.registry, lock).refusals.empty());
}

TEST_CASE("resolving twice gives the same lock, and the same bytes") {
  World world;
  const Lock a = resolve(world.registry, world.request(), kPlatform).value();
  const Lock b = resolve(world.registry, world.request(), kPlatform).value();
  CHECK(a == b);
  CHECK(pretty_json(a.to_json()) == pretty_json(b.to_json()));
}

TEST_CASE("a plugin version without a build for the platform gives way to the highest that has one") {
  World world;
  world.registry.publish(plugin_draft(world.folder(), "acme.mlp", "1.0.0", "arm"));
  world.registry.publish(plugin_draft(world.folder(), "acme.mlp", "2.0.0", "arm"));
  CHECK(resolve(world.registry, world.request(), "arm").value().slots[0].plugin.version.text() == "1.0.0");
  const auto none = refusals(world, world.request(), "sparc");
  REQUIRE(none.size() == 3); // the base's plugin and each expert's
  CHECK(none[0].rule == "TN-R7 platform");
  CHECK(none[0].code == Code::incompatible);
}

TEST_CASE("an expert of another model, base, cut or tokenizer is refused, both sides named") {
  World world;
  const auto published = [&](const char* name, auto change) {
    ExpertManifest manifest = expert_manifest(name);
    change(manifest.contract);
    world.registry.publish(draft(world.folder(), manifest));
    Request request = world.request();
    request.experts = {PackageRequest::parse("legal"), PackageRequest::parse(name)};
    return refusals(world, request);
  };
  const auto model = published("m", [](ModelContract& c) { c.model_digest = digest("x"); });
  REQUIRE(model.size() == 1);
  CHECK(model[0].rule == "TN-R10 model");
  CHECK(model[0].code == Code::incompatible);
  CHECK((mentions(model[0], "m 1.0.0") && mentions(model[0], digest("x"))));
  CHECK((mentions(model[0], "tiny 1.0.0") && mentions(model[0], contract().model_digest)));
  const auto base = published("b", [](ModelContract& c) { c.base_digest = digest("x"); });
  REQUIRE(base.size() == 1);
  CHECK(base[0].rule == "TN-R11 base");
  const auto cut = published("c", [](ModelContract& c) { c.cut = {1, 2}; });
  REQUIRE(cut.size() == 1);
  CHECK(cut[0].rule == "TN-R12 contract");
  const auto tokenizer = published("t", [](ModelContract& c) { c.tokenizer_digest = digest("x"); });
  REQUIRE(tokenizer.size() == 1);
  CHECK(mentions(tokenizer[0], "tokenizer"));
}

TEST_CASE("every expert that does not fit is named at once") {
  World world;
  Request request = world.request();
  request.experts = {PackageRequest::parse("nobody"), PackageRequest::parse("legal@^7"),
                     PackageRequest::parse("acme.mlp"), PackageRequest::parse("hr")};
  const auto found = refusals(world, request);
  REQUIRE(found.size() == 3);
  CHECK(found[0].rule == "TN-R2 missing");
  CHECK(found[1].rule == "TN-R4 range");
  CHECK(found[2].rule == "TN-R3 kind");
  const Error error = error_of([&] { resolve(world.registry, request, kPlatform).value(); });
  CHECK(error.code == Code::not_found);
  CHECK(error.message.find("TN-R4") != std::string::npos);
}

TEST_CASE("a request that names an expert twice, or the base, or an expert without a row is refused") {
  World world;
  Request request = world.request();
  request.experts = {PackageRequest::parse("legal"), PackageRequest::parse("legal@=1.0.0")};
  REQUIRE(refusals(world, request).size() == 1);
  CHECK(refusals(world, request)[0].rule == "TN-R13 request");
  request.experts = {PackageRequest::parse("tiny-base")};
  CHECK(refusals(world, request)[0].code == Code::usage);
  ExpertManifest rowless = expert_manifest("rowless");
  rowless.row.reset();
  world.registry.publish(draft(world.folder(), rowless));
  request.experts = {PackageRequest::parse("rowless")};
  CHECK(refusals(world, request)[0].message.find("has no row") != std::string::npos);
}

TEST_CASE("a model whose base is missing, or was retrained, is refused even before its experts") {
  World world;
  ModelManifest manifest = model_manifest("2.0.0");
  manifest.contract.base_digest = digest("a base that nobody published");
  world.registry.publish(draft(world.folder(), manifest));
  Request request;
  request.model = PackageRequest::parse("tiny");
  const auto found = refusals(world, request);
  REQUIRE(found.size() == 1);
  CHECK(found[0].rule == "TN-R11 base");
  CHECK(mentions(found[0], contract().base_digest));
  CHECK(mentions(found[0], manifest.contract.base_digest));
  request.model = PackageRequest::parse("tiny@^1");
  ExpertManifest retrained = base_manifest("1.1.0");
  retrained.contract.base_digest = digest("retrained");
  world.registry.publish(draft(world.folder(), retrained));
  CHECK(resolve(world.registry, request, kPlatform).value().slots[0].version.text() == "1.0.0");
}

TEST_CASE("a lock says what is missing, what differs and what was yanked") {
  World world;
  const Lock lock = resolve(world.registry, world.request(), kPlatform).value();
  world.registry.yank("legal", Version::parse("1.1.0"), "leaks names");
  LockCheck check = check_locked(world.registry, lock);
  CHECK(check.refusals.empty());
  REQUIRE(check.warnings.size() == 1);
  CHECK(check.warnings[0].find("leaks names") != std::string::npos);

  const auto differs = [&](auto change, const char* rule, const std::string& found) {
    Lock other = lock;
    change(other);
    const auto refused = check_locked(world.registry, other).refusals;
    REQUIRE(refused.size() == 1);
    INFO(refused[0].message);
    CHECK(refused[0].rule == rule);
    CHECK(mentions(refused[0], found));
    CHECK(refused[0].code == Code::incompatible);
  };
  const std::string x = digest("x");
  differs([&](Lock& l) { l.model.entry = x; }, "TN-R14 locked", lock.model.entry);
  differs([&](Lock& l) { l.model.model_digest = x; }, "TN-R14 locked", lock.model.model_digest);
  differs([&](Lock& l) { l.slots[2].weights = {x}; }, "TN-R14 locked", lock.slots[2].weights[0]);
  differs([&](Lock& l) { l.slots[2].row = x; }, "TN-R14 locked", *lock.slots[2].row);
  differs([&](Lock& l) { l.slots[0].plugin.library = x; }, "TN-R14 locked", lock.slots[0].plugin.library);
  differs([&](Lock& l) { l.slots[2].version = Version::parse("1.0.1"); }, "TN-R14 locked", "1.0.0");

  std::filesystem::remove(world.registry.blob(lock.slots[2].weights[0]));
  const auto refused = check_locked(world.registry, lock).refusals;
  REQUIRE(refused.size() == 1);
  CHECK(refused[0].rule == "TN-R2 missing");
  CHECK(mentions(refused[0], "weights.safetensors"));
}

TEST_CASE("a lock is not resolved anew when something better is published") {
  World world;
  const Lock lock = resolve(world.registry, world.request(), kPlatform).value();
  world.registry.publish(draft(world.folder(), expert_manifest("legal", "1.2.0")));
  CHECK(check_locked(world.registry, lock).refusals.empty());
  CHECK(resolve(world.registry, world.request(), kPlatform).value() != lock);
}
