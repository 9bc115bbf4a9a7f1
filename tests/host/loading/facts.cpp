#include "host/loading/facts.hpp"

#include "registry/base/error.hpp"
#include "tests/registry/fixtures.hpp"
#include "tests/support/mutate.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;
using Catch::Matchers::Contains;

namespace {

const std::string kFacts = R"({
  "schema": 1, "name": "acme.conv", "version": "1.2.0", "vendor": "acme", "license": "MIT", "summary": "Convolutions",
  "architectures": [{
    "name": "acme.conv",
    "config": {"type": "object", "additionalProperties": false, "required": ["taps"],
               "properties": {"taps": {"type": "integer", "minimum": 1}, "inner": {"type": "integer", "default": 64}}},
    "context": {"window": 4}, "uses": ["base.output"], "widths": [576, 768], "devices": ["cpu"],
    "precisions": ["float32"], "operators": ["tenon::linear_v1"], "cpu_features": ["avx2"],
    "memory": {"working_bytes_per_row": 4096}
  }],
  "platform": {"compiler": "gnu-12", "stdlib": "libstdc++-cxx11", "libtorch": "2.11.0", "cuda": "none", "cpu": "x86_64"},
  "abi": {"tier": "tenon.native/1", "built": "1.3", "needs": "1.1"},
  "source": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
})";

std::string with(const std::string& from, const std::string& to) {
  std::string text = kFacts;
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string refusal(const std::string& text) {
  const Error error = error_of([&] { Facts::parse(text, "conv.so"); });
  CHECK(error.code == Code::integrity);
  return error.what();
}

} // namespace

TEST_CASE("facts say everything that a host decides by") {
  const Facts facts = Facts::parse(kFacts, "conv.so");
  CHECK(facts.title() == "acme.conv 1.2.0");
  CHECK(facts.platform.text() == "gnu-12 libstdc++-cxx11 libtorch-2.11.0 cuda-none x86_64");
  CHECK(facts.abi_built == AbiVersion{1, 3});
  CHECK(facts.abi_needs == AbiVersion{1, 1});
  const ArchitectureFacts* conv = facts.architecture("acme.conv");
  REQUIRE(conv);
  CHECK(conv->context.text() == "window(4)");
  CHECK(conv->uses_base_output());
  CHECK(conv->working_bytes_per_row == 4096);
  CHECK_FALSE(conv->imports_layers);
  CHECK(Facts::parse(with("\"context\"", "\"imports\": \"layers\", \"context\""), "conv.so")
            .architecture("acme.conv")
            ->imports_layers);
  CHECK_FALSE(conv->learns_in_a_pass);
  CHECK(facts.architecture("acme.other") == nullptr);
  const Facts pass = Facts::parse(with("\"uses\"", "\"learns\": \"pass\", \"uses\""), "conv.so");
  CHECK(pass.architecture("acme.conv")->learns_in_a_pass);
}

TEST_CASE("facts that break their schema are refused with the place") {
  CHECK_THAT(refusal(with("\"license\": \"MIT\", ", "")), Contains("license"));
  CHECK_THAT(refusal(with("\"schema\": 1", "\"schema\": 2")), Contains("schema"));
  CHECK_THAT(refusal(with("\"uses\"", "\"use\"")), Contains("use"));
  CHECK_THAT(refusal(with("\"window\": 4", "\"window\": 0")), Contains("context"));
  CHECK_THAT(refusal(with("\"uses\"", "\"learns\": \"by heart\", \"uses\"")), Contains("learns"));
  CHECK_THAT(refusal(with("\"uses\": [\"base.output\"]", "\"learns\": \"pass\"")), Contains("base.output"));
  CHECK_THAT(refusal(with("tenon.native/1", "tenon.quantum/9")), Contains("tier"));
  CHECK_THAT(refusal(with("\"float32\"", "\"float8\"")), Contains("precisions"));
  CHECK_THAT(refusal(with("\"version\": \"1.2.0\"", "\"version\": \"newest\"")), Contains("newest"));
  CHECK_THAT(refusal(with("\"vendor\": \"acme\"", "\"vendor\": \"acme\", \"vendor\": \"acme\"")), Contains("twice"));
  CHECK_THAT(refusal("[1, 2]"), Contains("conv.so"));
  CHECK_THAT(refusal(""), Contains("conv.so"));
}

TEST_CASE("facts that make no sense are refused though their schema holds") {
  CHECK_THAT(refusal(with("\"vendor\": \"acme\"", "\"vendor\": \"other\"")), Contains("other..."));
  CHECK_THAT(refusal(with("\"needs\": \"1.1\"", "\"needs\": \"1.4\"")), Contains("1.4") && Contains("1.3"));
  CHECK_THAT(refusal(with("\"needs\": \"1.1\"", "\"needs\": \"0.9\"")), Contains("0.9"));
  CHECK_THAT(refusal(with("{\"type\": \"object\", \"additional", "{\"type\": \"thing\", \"additional")),
             Contains("acme.conv config"));
  const Error error = error_of([] { Facts::parse(kFacts + std::string(1 << 20, ' '), "conv.so"); });
  CHECK_THAT(error.message, Contains("need at most 1048576"));
}

TEST_CASE("a configuration is completed from its schema, or refused with each problem") {
  const Facts facts = Facts::parse(kFacts, "conv.so");
  const ArchitectureFacts& conv = *facts.architecture("acme.conv");
  CHECK(conv.complete({{"taps", 3}}) == json::object{{"taps", 3}, {"inner", 64}});
  CHECK_THAT(error_of([&] { conv.complete({{"taps", 0}}); }).message, Contains("taps"));
  CHECK_THAT(error_of([&] { conv.complete({}); }).message, Contains("taps"));
  CHECK_THAT(error_of([&] { conv.complete({{"taps", 3}, {"tap", 3}}); }).message, Contains("tap"));
}

TEST_CASE("contexts and widths are read as they are written") {
  for (const char* text : {"token", "window(1)", "window(300)", "causal", "recurrent"}) {
    CHECK(ExpertContext::parse(text).text() == text);
  }
  for (const char* text : {"", "Token", "window", "window()", "window(0)", "window(-2)", "window(3", "window(3x)"}) {
    CHECK_THROWS_AS(ExpertContext::parse(text), Error);
  }
  const Widths any, some{{576, 768}, 1}, multiples{{}, 64};
  CHECK(any.allow(577));
  CHECK_FALSE(any.allow(0));
  CHECK(some.allow(768));
  CHECK_FALSE(some.allow(769));
  CHECK(multiples.allow(640));
  CHECK_FALSE(multiples.allow(650));
  CHECK(some.text() == "576 or 768");
  CHECK(multiples.text() == "multiples of 64");
}

TEST_CASE("mutated facts are read or refused, nothing else") {
  Mutator mutator(11);
  for (int i = 0; i < 3000; ++i) {
    const std::string text = mutator.mutate(kFacts);
    try {
      Facts::parse(text, "mutated");
    } catch (const Error& error) {
      CHECK(error.code == Code::integrity);
    }
  }
}
