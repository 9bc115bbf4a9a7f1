#include "host/loading/rules.hpp"

#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"
#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace tenon;
using namespace tenon::fixtures;
using Catch::Matchers::Contains;

namespace {

// A host that every honest plugin of tests/hostile fits.
HostSide host() {
  HostSide out;
  out.platform = {"gnu-12", "libstdc++-cxx11", "2.11.0", "none", "x86_64"};
  out.abi = {1, 2};
  out.operators = {"tenon::linear_v1", "tenon::pack_linear_v1"};
  out.cpu_features = {"avx2", "fma"};
  out.devices = {"cpu"};
  return out;
}

std::filesystem::path library(const std::string& name) { return std::filesystem::path(TENON_HOSTILE) / (name + ".so"); }

// The first refusal of a library of tests/hostile by the steps that run none of its code.
std::optional<Refusal> refusal_of(const std::string& name, const HostSide& side = host()) {
  const MappedFile file(library(name));
  return first_refusal(library_candidate(file.bytes(), name + ".so", side), 1, 6);
}

void check_refused(const std::string& name, const std::string& rule, Code code, const std::string& message,
                   const std::string& remedy) {
  const auto refusal = refusal_of(name);
  REQUIRE(refusal);
  CHECK(refusal->rule == rule);
  CHECK(refusal->code == code);
  CHECK_THAT(refusal->message, Contains(message));
  CHECK_THAT(refusal->remedy, Contains(remedy));
}

// An expert of hostile.plain, and the model it is for.
struct Pair {
  ExpertManifest expert = expert_manifest("legal");
  ModelManifest model = model_manifest();
  HostSide side = host();
  MappedFile file{library("honest")};
  Candidate candidate = library_candidate(file.bytes(), "honest.so", side);

  Pair() {
    expert.plugin = PackageRequest::parse("hostile.plain@^1");
    expert.architecture = "hostile.plain";
    expert.config = {{"rank", 4}};
    candidate.expert = &expert;
    candidate.model = &model;
  }
  Refusal refusal() const {
    const auto first = first_refusal(candidate, 6, 6);
    return first ? *first : Refusal{Code::bug, "none", "nothing was refused", ""};
  }
};

} // namespace

TEST_CASE("an honest plugin is refused by no rule") {
  for (const char* name : {"honest", "stripped", "built_newer"}) {
    const auto refusal = refusal_of(name);
    CHECK_FALSE(refusal);
  }
}

TEST_CASE("platform refuses a plugin built for another LibTorch, naming both and the remedy") {
  const auto refusal = refusal_of("other_libtorch");
  REQUIRE(refusal);
  CHECK(refusal->to_error().what() ==
        std::string(
            "[TN-P2 platform] hostile.plain 1.2.0: built for LibTorch 2.10.0, host has 2.11.0; build it again with "
            "this Tenon's SDK and LibTorch 2.11.0, or ask hostile for such a build"));
  CHECK(exit_status(refusal->code) == 4);
}

TEST_CASE("platform names every side that differs") {
  HostSide side = host();
  side.platform.compiler = "clang-14";
  side.platform.cuda = "13.0";
  const auto refusal = refusal_of("honest", side);
  REQUIRE(refusal);
  CHECK_THAT(refusal->message, Contains("compiler gnu-12, host has clang-14") && Contains("CUDA none, host has 13.0"));
}

TEST_CASE("a plugin of the tier that no host runs yet is refused before it is published") {
  Pair pair;
  pair.candidate.facts->tier = "tenon.portable/1";
  const auto refusal = first_refusal(pair.candidate, 5, 5);
  REQUIRE(refusal);
  CHECK(refusal->code == Code::incompatible);
  CHECK_THAT(refusal->message, Contains("tenon.portable/1") && Contains("host runs tenon.native/1"));
}

TEST_CASE("abi refuses what needs a newer boundary or another major, both ways, and takes what was only built newer") {
  check_refused("next_major", "TN-P3 abi", Code::incompatible, "built for boundary 2.0, host has 1.2", "update Tenon");
  check_refused("next_minor", "TN-P3 abi", Code::incompatible, "needs boundary 1.7 at least, host has 1.2",
                "update Tenon");
  HostSide newer = host();
  newer.abi = {2, 0};
  const auto refusal = refusal_of("honest", newer);
  REQUIRE(refusal);
  CHECK_THAT(refusal->message, Contains("built for boundary 1.0, host has 2.0"));
  CHECK_THAT(refusal->remedy, Contains("build the plugin again"));
}

TEST_CASE("elf rules refuse a library that is badly linked, each by its own id") {
  check_refused("no_note", "TN-P6 facts", Code::integrity, "no_note.so: found no facts", "tenon_add_plugin()");
  check_refused("bad_facts", "TN-P6 facts", Code::integrity, "bad_facts.so: facts", "tenon_add_plugin()");
  check_refused("second_export", "TN-P7 exports", Code::integrity, "second_export", "tenon_add_plugin()");
  check_refused("no_entry", "TN-P7 exports", Code::integrity, "no tenon_plugin_entry", "TENON_PLUGIN");
  check_refused("links_openmp", "TN-P8 needed", Code::incompatible, "libgomp.so.1", "parallel_for");
  check_refused("search_path", "TN-P9 paths", Code::integrity, "/opt/elsewhere", "tenon_add_plugin()");
  check_refused("registers", "TN-P10 registers", Code::integrity, "registerDef", "operators.hpp");
}

TEST_CASE("a file that is no library, or one for another CPU, is refused by TN-P5") {
  const HostSide side = host();
  const std::string text = "this is no library";
  const auto none = first_refusal(library_candidate(std::as_bytes(std::span(text)), "notes.so", side), 1, 6);
  REQUIRE(none);
  CHECK(none->rule == "TN-P5 elf");
  CHECK_THAT(none->message, Contains("notes.so"));
  HostSide arm = host();
  arm.platform.cpu = "aarch64";
  const auto other = refusal_of("honest", arm);
  REQUIRE(other);
  CHECK(other->rule == "TN-P5 elf");
  CHECK_THAT(other->message, Contains("x86_64") && Contains("aarch64"));
}

TEST_CASE("operators and CPU features that are missing are named") {
  HostSide bare = host();
  bare.operators = {"tenon::rope_v1"};
  const auto operators = refusal_of("honest", bare);
  REQUIRE(operators);
  CHECK(operators->rule == "TN-P12 operators");
  CHECK_THAT(operators->message, Contains("calls tenon::linear_v1, host has tenon::rope_v1"));

  Pair pair;
  pair.candidate.facts->architectures[0].cpu_features = {"avx2", "amx"};
  const auto cpu = first_refusal(pair.candidate, 4, 4);
  REQUIRE(cpu);
  CHECK(cpu->rule == "TN-P11 cpu");
  CHECK_THAT(cpu->message, Contains("features amx, this machine has avx2, fma"));
}

TEST_CASE("an expert that fits is refused by no rule") { CHECK(Pair().refusal().rule == "none"); }

TEST_CASE("an expert is refused by what does not fit, both sides named") {
  Pair pair;
  SECTION("another plugin version") {
    pair.expert.plugin = PackageRequest::parse("hostile.plain@^2");
    CHECK(pair.refusal().rule == "TN-P22 plugin");
    CHECK_THAT(pair.refusal().message, Contains("hostile.plain@^2") && Contains("hostile.plain 1.2.0"));
  }
  SECTION("unknown architecture") {
    pair.expert.architecture = "hostile.fancy";
    CHECK(pair.refusal().rule == "TN-P13 architecture");
    CHECK_THAT(pair.refusal().message, Contains("hostile.fancy") && Contains("has hostile.plain"));
  }
  SECTION("another context") {
    pair.expert.context = "causal";
    CHECK_THAT(pair.refusal().message, Contains("context causal") && Contains("has token"));
  }
  SECTION("made without what the architecture uses") {
    pair.expert.uses = {};
    CHECK_THAT(pair.refusal().message, Contains("without base.output"));
  }
  SECTION("configuration against its schema") {
    pair.expert.config = {{"rank", "many"}};
    CHECK(pair.refusal().rule == "TN-P14 config");
    CHECK_THAT(pair.refusal().message, Contains("rank"));
  }
  SECTION("another model") {
    pair.expert.contract.model_digest = digest("another");
    CHECK(pair.refusal().rule == "TN-R10 model");
  }
  SECTION("another base") {
    pair.expert.contract.base_digest = digest("another");
    CHECK(pair.refusal().rule == "TN-R11 base");
  }
  SECTION("another cut") {
    pair.expert.contract.cut = {1, 2};
    CHECK(pair.refusal().rule == "TN-R12 contract");
    CHECK_THAT(pair.refusal().message, Contains("1:2") && Contains("1:3"));
  }
  SECTION("another tokenizer") {
    pair.expert.contract.tokenizer_digest = digest("another");
    CHECK(pair.refusal().rule == "TN-R12 contract");
  }
  SECTION("a width the architecture cannot have") {
    pair.expert.contract.width = pair.model.contract.width = 24;
    CHECK(pair.refusal().rule == "TN-P15 width");
    CHECK_THAT(pair.refusal().message, Contains("8 or 16") && Contains("24"));
  }
  SECTION("a precision it does not have") {
    pair.candidate.dtype = "bfloat16";
    CHECK(pair.refusal().rule == "TN-P16 precision");
    CHECK_THAT(pair.refusal().message, Contains("float32") && Contains("bfloat16"));
  }
  SECTION("a device it does not run on") {
    pair.candidate.device = "cuda";
    CHECK(pair.refusal().rule == "TN-P17 device");
  }
  CHECK(exit_status(pair.refusal().code) == 4);
  CHECK_FALSE(pair.refusal().remedy.empty());
}

TEST_CASE("weights that are missing, extra, misshapen or of another type are refused by name") {
  Pair pair;
  pair.expert.weights = {{"up", {16, 8}, "float32", "file:up"}, {"q", {8, 8}, "float32", "base:blocks.0.q"}};
  std::vector<WeightRecord> asked = {{"up", {16, 8}, "float32", ""}, {"q", {8, 8}, "float32", "base:blocks.0.q"}};
  const auto refusal = [&] {
    pair.candidate.parameters = asked;
    const auto first = first_refusal(pair.candidate, 9, 9);
    return first ? first->rule + ": " + first->message : std::string("none");
  };
  CHECK(refusal() == "none");
  SECTION("missing") {
    asked.push_back({"down", {8, 16}, "float32", ""});
    CHECK_THAT(refusal(), Contains("TN-P20 weights") && Contains("no weight down") && Contains("(8, 16)"));
  }
  SECTION("extra") {
    asked.pop_back();
    CHECK_THAT(refusal(), Contains("found the weight q"));
  }
  SECTION("misshapen") {
    asked[0].shape = {16, 4};
    CHECK_THAT(refusal(), Contains("weight up: found shape (16, 8), need (16, 4)"));
  }
  SECTION("another type") {
    asked[0].dtype = "bfloat16";
    CHECK_THAT(refusal(), Contains("found dtype float32, need bfloat16"));
  }
  SECTION("own values where the base's are asked for") {
    pair.expert.weights[1].source = "file:q";
    CHECK_THAT(refusal(), Contains("found its own values, need base:blocks.0.q"));
  }
}

TEST_CASE("a package that disagrees with itself, its library or its digest is refused") {
  Pair pair;
  Entry entry;
  entry.kind = Kind::plugin;
  entry.name = "hostile.plain";
  entry.version = Version::parse("1.2.0");
  entry.manifest = pair.candidate.facts->json;
  entry.platform = pair.candidate.facts->platform.text();
  entry.source = pair.candidate.facts->source;
  pair.candidate.digest = "sha256:" + sha256(pair.file.bytes());
  entry.files = {{"hostile_plain.so", "library", pair.candidate.digest, pair.file.bytes().size()}};
  pair.candidate.entry = &entry;
  const auto refusal = [&] {
    const auto first = first_refusal(pair.candidate, 1, 5);
    return first ? first->rule + ": " + first->message : std::string("none");
  };
  CHECK(refusal() == "none");
  SECTION("an expert's entry") {
    entry.kind = Kind::expert;
    CHECK_THAT(refusal(), Contains("TN-P1 package") && Contains("kind expert"));
  }
  SECTION("another version in the facts") {
    entry.version = Version::parse("1.3.0");
    CHECK_THAT(refusal(), Contains("TN-P1 package") && Contains("1.2.0") && Contains("1.3.0"));
  }
  SECTION("no library") {
    entry.files.clear();
    CHECK_THAT(refusal(), Contains("found 0 libraries"));
  }
  SECTION("another digest") {
    entry.files[0].digest = digest("other bytes");
    CHECK_THAT(refusal(), Contains("TN-P4 digest") && Contains(digest("other bytes")));
  }
  SECTION("facts that differ from those embedded") {
    entry.manifest["summary"] = "Does everything right";
    CHECK_THAT(refusal(), Contains("TN-P21 agreement"));
  }
}

TEST_CASE("every rule has an id of its own, a step, and its remedy in words") {
  std::set<std::string> ids;
  int last_step = 1;
  for (const Rule& rule : loading_rules()) {
    CHECK(ids.insert(rule.id).second);
    CHECK(std::string(rule.remedy).size() > 5);
    CHECK(rule.step >= last_step);
    last_step = rule.step;
  }
  CHECK(last_step == 9);
}

TEST_CASE("judging lists every rule, refused or not") {
  const HostSide side = host();
  const MappedFile file(library("links_openmp"));
  const auto judgements = judge(library_candidate(file.bytes(), "links_openmp.so", side));
  CHECK(judgements.size() == loading_rules().size());
  std::size_t refused = 0, judged = 0;
  for (const Judgement& one : judgements) {
    refused += one.verdict == Verdict::refused;
    judged += one.verdict != Verdict::not_judged;
    CHECK(one.refusal.has_value() == (one.verdict == Verdict::refused));
  }
  CHECK(refused == 1);
  CHECK(judged >= 10);
}
