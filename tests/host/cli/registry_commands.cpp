// The commands of a registry as a user calls them: words in, text and an exit status out.
#include "host/cli/command.hpp"
#include "host/formats/safetensors.hpp"
#include "registry/index.hpp"
#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

namespace tenon {
void add_publish(CLI::App& app, Context& context);
void add_list(CLI::App& app, Context& context);
void add_show(CLI::App& app, Context& context);
void add_search(CLI::App& app, Context& context);
void add_verify(CLI::App& app, Context& context);
void add_yank(CLI::App& app, Context& context);
} // namespace tenon

using namespace tenon;
using namespace tenon::fixtures;

namespace {

struct Said {
  int status = 0;
  std::string out, err;
  json::value json() const { return parse_json(out, "stdout"); }
  bool says(const std::string& text) const { return (out + err).find(text) != std::string::npos; }
};

std::string text_of(std::FILE* file) {
  std::rewind(file);
  std::string all;
  for (int c; (c = std::fgetc(file)) != EOF;) all += static_cast<char>(c);
  std::fclose(file);
  return all;
}

// With the weights that its manifest names.
void whole_draft(const std::filesystem::path& folder, const ExpertManifest& manifest) {
  draft(folder, manifest);
  const std::vector<float> up(16 * 8, 0.5f);
  const TensorView view{"up", Dtype::F32, {16, 8}, std::as_bytes(std::span(up))};
  write_safetensors(folder / "weights.safetensors", std::vector<TensorView>{view});
}

Said tenon_says(std::vector<std::string> words) {
  words.insert(words.begin(), "tenon");
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  std::FILE *results = std::tmpfile(), *messages = std::tmpfile();
  Said said;
  {
    Context context;
    context.out = Output(context.flags, results, messages);
    CLI::App app("A test");
    set_up_root(app, context);
    for (const auto add : {add_publish, add_list, add_show, add_search, add_verify, add_yank}) add(app, context);
    said.status = run_command(app, context, static_cast<int>(argv.size()), argv.data());
  }
  said.out = text_of(results);
  said.err = text_of(messages);
  return said;
}

// Every call with the world's registry, and a home that is not the user's.
struct Shop {
  World world;
  Said operator()(std::vector<std::string> words) {
    words.insert(words.end(), {"--registry", world.registry.path().string(), "--home", home().string()});
    return tenon_says(std::move(words));
  }
  std::filesystem::path home() const { return world.scratch.path() / "home"; }
};

} // namespace

TEST_CASE("list names every package with its versions, and can be narrowed to a kind") {
  Shop tenon;
  tenon.world.registry.yank("legal", Version::parse("1.0.0"), "");
  const Said all = tenon({"list"});
  CHECK(all.status == 0);
  for (const char* text : {"tiny-base", "acme.mlp", "1.1.0, 1.0.0 (yanked)", "Knows legal"}) CHECK(all.says(text));
  const Said models = tenon({"list", "--kind", "model", "--json"});
  REQUIRE(models.json().at("packages").as_array().size() == 1);
  CHECK(models.json().at("packages").as_array()[0].at("name") == "tiny");
  CHECK(tenon({"list", "--kind", "chair"}).status == 2);
}

TEST_CASE("list warns of a damaged package and shows the others") {
  Shop tenon;
  write(index_path(tenon.world.registry.path(), "hr"), "{}\n");
  const Said said = tenon({"list"});
  CHECK(said.status == 0);
  CHECK(said.err.find("hr.jsonl") != std::string::npos);
  CHECK(said.out.find("legal") != std::string::npos);
  CHECK(tenon({"list", "--json"}).json().at("damaged").as_array().size() == 1);
}

TEST_CASE("show tells what a package is, in words and as JSON") {
  Shop tenon;
  const Said said = tenon({"show", "legal"});
  CHECK(said.status == 0);
  for (const char* text : {"expert legal 1.1.0", "acme.mlp@^1", "cut 1:3, width 8", "weights.safetensors"})
    CHECK(said.says(text));
  const json::value json = tenon({"show", "legal@=1.0.0", "--json"}).json();
  CHECK(json.at("entries").as_array()[0].at("version") == "1.0.0");
  CHECK(tenon({"show", "tiny"}).says("llama, 4 layers"));
  CHECK(tenon({"show", "acme.mlp"}).says(kPlatform));
  const Said unknown = tenon({"show", "leagl"});
  CHECK(unknown.status == 3);
  CHECK(unknown.err.find("did you mean legal") != std::string::npos);
  CHECK(tenon({"show", "legal@^9"}).status == 3);
}

TEST_CASE("show and verify know a composition by its name") {
  Shop tenon;
  const Lock lock = resolve(tenon.world.registry, tenon.world.request(), kPlatform).value();
  const auto folder = tenon.home() / "compositions/bot";
  std::filesystem::create_directories(folder);
  write_lock(folder / "composition.lock.json", lock);
  const Said said = tenon({"show", "bot"});
  CHECK(said.status == 0);
  CHECK((said.says("tiny-base (base)") && said.says("legal") && said.says("not fitted")));
  CHECK(tenon({"verify", "bot"}).status == 0);
  const auto weights = tenon.world.registry.blob(lock.slots[1].weights[0]);
  std::filesystem::remove(weights);
  const Said missing = tenon({"verify", "bot"});
  CHECK(missing.status == 3);
  CHECK(missing.says("weights.safetensors"));
}

TEST_CASE("search finds by words and says when nothing does") {
  Shop tenon;
  CHECK(tenon({"search", "knows", "LEGAL", "--json"}).json().at("packages").as_array().size() == 1);
  const Said nothing = tenon({"search", "unicorn"});
  CHECK(nothing.status == 0);
  CHECK(nothing.out.empty());
}

TEST_CASE("verify ends with status 5 at a flipped byte, and names the blob") {
  Shop tenon;
  CHECK(tenon({"verify"}).status == 0);
  const Entry entry = tenon.world.registry.resolve(PackageRequest::parse("legal"), Kind::expert);
  const auto blob = tenon.world.registry.blob(entry.file("weights.safetensors").digest);
  std::string bytes = read(blob);
  bytes[0] ^= 1;
  std::filesystem::permissions(blob, std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
  write(blob, bytes);
  const Said said = tenon({"verify", "legal"});
  CHECK(said.status == 5);
  CHECK(said.says(blob.filename().string()));
  CHECK(said.says(digest_of_text(bytes)));
  CHECK(tenon({"verify", "hr"}).status == 0);
  const Said json = tenon({"verify", "--json"});
  CHECK(json.status == 5);
  CHECK_FALSE(json.json().at("ok").as_bool());
  CHECK(parse_json(json.err, "stderr").at("error").at("code") == "integrity");
}

TEST_CASE("yank and its undo say what changed") {
  Shop tenon;
  CHECK(tenon({"yank", "legal@1.1.0", "--reason", "leaks names"}).status == 0);
  CHECK(tenon({"show", "legal@=1.1.0"}).err.find("leaks names") != std::string::npos);
  CHECK(tenon({"show", "legal"}).says("expert legal 1.0.0"));
  CHECK(tenon({"yank", "legal@1.1.0"}).status == 2);
  CHECK(tenon({"yank", "legal@1.1.0", "--undo"}).status == 0);
  CHECK(tenon({"show", "legal"}).says("expert legal 1.1.0"));
  CHECK(tenon({"yank", "legal"}).status == 2);
  CHECK(tenon({"yank", "legal@^1"}).status == 2);
  CHECK(tenon({"yank", "nobody@1.0.0"}).status == 3);
}

TEST_CASE("publish puts a package folder in the registry, once") {
  Shop tenon;
  const auto folder = tenon.world.folder(), other_weights = tenon.world.folder();
  whole_draft(folder, expert_manifest("fresh"));
  draft(other_weights, expert_manifest("torn"));
  CHECK(tenon({"publish", other_weights}).status == 5);
  CHECK_FALSE(tenon.world.registry.find("torn"));
  const Said dry = tenon({"publish", folder, "--dry-run"});
  CHECK(dry.status == 0);
  CHECK(dry.says("would publish expert fresh 1.0.0"));
  CHECK_FALSE(tenon.world.registry.find("fresh"));
  const Said said = tenon({"publish", folder});
  CHECK(said.status == 0);
  CHECK(said.says("published expert fresh 1.0.0"));
  CHECK(said.says("tenon compose"));
  CHECK(tenon({"publish", folder}).status == 2);
  CHECK(tenon({"publish", folder, "--dry-run"}).status == 2);
  CHECK(tenon.world.registry.show("fresh").versions.size() == 1);
  const auto other = tenon.world.folder();
  whole_draft(other, expert_manifest("other"));
  const json::value json = tenon({"publish", other, "--json"}).json();
  CHECK(json.at("published").as_array()[0].at("name") == "other");
  CHECK(tenon({"publish", tenon.world.scratch.path() / "gone"}).status == 3);
  write(tenon.world.scratch.path() / "no.so", "not a library");
  CHECK(tenon({"publish", tenon.world.scratch.path() / "no.so"}).status == 5);
}

TEST_CASE("the registry at home is made at its first use, and another only when asked") {
  Scratch scratch;
  const std::string home = scratch.path() / "home", team = scratch.path() / "team";
  CHECK(tenon_says({"list", "--home", home}).status == 0);
  CHECK(std::filesystem::exists(home + "/registry/config.json"));
  const auto folder = scratch.path() / "package";
  whole_draft(folder, expert_manifest("fresh"));
  const Said refused = tenon_says({"publish", folder, "--home", home, "--registry", team});
  CHECK(refused.status == 3);
  CHECK(refused.says("--create"));
  CHECK_FALSE(std::filesystem::exists(team));
  CHECK(tenon_says({"publish", folder, "--home", home, "--registry", team, "--create"}).status == 0);
  CHECK(Registry(team).name() == "team");
}
