#include "registry/lock.hpp"

#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;

TEST_CASE("a lock read back equals the lock that was written") {
  World world;
  Lock lock = resolve(world.registry, world.request(), kPlatform).value();
  lock.router.prior = 0.1 + 0.2;
  lock.router.prior_set = lock.set_digest();
  const auto path = world.scratch.path() / "composition.lock.json";
  write_lock(path, lock);
  CHECK(read_lock(path) == lock);
  CHECK(read_lock(path).set_digest() == lock.router.prior_set);
}

TEST_CASE("a request read back equals the request that was written") {
  World world;
  Request request = world.request();
  request.compute_dtype = "bf16";
  const auto path = world.scratch.path() / "composition.json";
  for (const Routing& routing : {Routing{"softmax", 3, 0.7, "token"}, Routing{"top_k", 3, 0.7, "sticky", 1.5},
                                 Routing{"softmax", 2, 1.0, "sequence", 2.0, 9}, Routing{"sparsemax", 2, 0.5, "token"},
                                 Routing{"entmax", 2, 1.0, "token"}}) {
    request.routing = routing;
    write_request(path, request);
    CHECK(read_request(path) == request);
  }
}

TEST_CASE("the set's digest changes with everything a prior depends on, and with nothing else") {
  World world;
  const Lock lock = resolve(world.registry, world.request(), kPlatform).value();
  const auto changed = [&](auto change) {
    Lock other = lock;
    change(other);
    return other.set_digest() != lock.set_digest();
  };
  CHECK(changed([](Lock& l) { l.model.entry = digest("x"); }));
  CHECK(changed([](Lock& l) { l.slots[1].row = digest("x"); }));
  CHECK(changed([](Lock& l) { std::swap(l.slots[1].entry, l.slots[2].entry); }));
  CHECK(changed([](Lock& l) { l.slots.pop_back(); }));
  CHECK(changed([](Lock& l) { l.router.routing.top_k = 1; }));
  CHECK(changed([](Lock& l) { l.router.routing.temperature = 2; }));
  CHECK(changed([](Lock& l) { l.router.routing.policy = "sticky"; }));
  CHECK_FALSE(changed([](Lock& l) { l.router.prior = 3.0; }));
  CHECK_FALSE(changed([](Lock& l) { l.slots[1].plugin.library = digest("x"); }));
}

TEST_CASE("a lock or request that breaks a rule is refused with file and path") {
  World world;
  const Lock lock = resolve(world.registry, world.request(), kPlatform).value();
  const auto refuse_lock = [&](auto change, const std::string& path) {
    json::value value = lock.to_json();
    change(value.get_object());
    const Error error = error_of([&] { Lock::parse(value, "composition.lock.json"); });
    INFO(error.what());
    CHECK(error.code == Code::integrity);
    CHECK(error.unit == "TN-R9 format: composition.lock.json");
    CHECK(error.message.find(path) != std::string::npos);
  };
  const auto slot = [](json::object& o, std::size_t i) -> json::object& {
    return o["slots"].as_array()[i].as_object();
  };
  refuse_lock([](auto& o) { o["schema"] = 2; }, "/schema");
  refuse_lock([](auto& o) { o["extra"] = 2; }, "extra");
  refuse_lock([](auto& o) { o["slots"] = json::array(); }, "/slots");
  refuse_lock([&](auto& o) { slot(o, 1)["slot"] = 5; }, "/slots/1/slot");
  refuse_lock([&](auto& o) { slot(o, 1)["row"] = "x"; }, "/slots/1/row");
  refuse_lock([&](auto& o) { slot(o, 1).erase("row"); }, "row");
  refuse_lock([&](auto& o) { slot(o, 0)["name"] = "../x"; }, "/slots/0/name");
  refuse_lock([&](auto& o) { slot(o, 2)["plugin"].as_object()["library"] = 1; }, "/slots/2/plugin/library");
  refuse_lock([](auto& o) { o["router"].as_object()["temperature"] = 0; }, "/router/temperature");
  refuse_lock([](auto& o) { o["router"].as_object()["top_k"] = 0; }, "/router/top_k");
  refuse_lock([](auto& o) { o["router"].as_object()["prior"] = 1.5; }, "prior_set");
  refuse_lock([](auto& o) { o["compute"].as_object()["dtype"] = "float8"; }, "/compute/dtype");

  const auto refuse_request = [&](auto change, const std::string& path) {
    json::value value = world.request().to_json();
    change(value.get_object());
    const Error error = error_of([&] { Request::parse(value, "composition.json"); });
    INFO(error.what());
    CHECK(error.code == Code::integrity);
    CHECK(error.message.find(path) != std::string::npos);
  };
  refuse_request([](auto& o) { o["model"] = "Tiny"; }, "/model");
  refuse_request([](auto& o) { o["experts"].as_array()[0] = "legal@latest"; }, "/experts/0");
  refuse_request([](auto& o) { o["routing"].as_object()["topk"] = 2; }, "topk");
  refuse_request([](auto& o) { o["routing"].as_object()["strengths"] = "loud"; }, "/routing/strengths");
  refuse_request([](auto& o) { o["routing"].as_object()["margin"] = 1.0; }, "/routing/margin");
  refuse_request([](auto& o) { o["routing"] = {{"policy", "sticky"}, {"margin", -1.0}}; }, "margin of -1");
  refuse_request([](auto& o) { o["routing"] = {{"policy", "sticky"}, {"strengths", "softmax"}}; }, "sticky");
  refuse_request([](auto& o) { o["routing"] = {{"policy", "sequence"}, {"decide_after", 1}}; }, "decide_after 1");
  refuse_request([](auto& o) { o["routing"] = {{"average_over", 0}}; }, "average_over 0");
  refuse_request([](auto& o) { o["routing"] = {{"policy", "sequence"}, {"average_over", 4}}; }, "need one of them");
}
