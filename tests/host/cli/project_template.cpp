#include "host/cli/project_template.hpp"

#include "registry/base/json.hpp"
#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;
using Catch::Matchers::Contains;

TEST_CASE("plugin new names everything after the plugin") {
  const ProjectNames names = ProjectNames::from("acme.long-memory", "");
  CHECK(names.vendor == "acme");
  CHECK(names.target == "acme_long_memory");
  CHECK(names.type == "LongMemory");
  CHECK(ProjectNames::from("memory", "acme").name == "acme.memory");
  CHECK(ProjectNames::from("acme.memory", "acme").name == "acme.memory");
}

TEST_CASE("plugin new refuses a name that no package may have, with an example") {
  for (const char* name :
       {"memory", "Acme.memory", "acme.", ".memory", "acme.two.parts", "acme.2nd", "acme.a b", "../acme.x"}) {
    const Error error = error_of([&] { ProjectNames::from(name, ""); });
    INFO(name);
    CHECK(error.code == Code::usage);
    CHECK_THAT(error.remedy, Contains("tenon plugin new acme.memory"));
  }
  CHECK(error_of([] { ProjectNames::from("acme.memory", "other"); }).code == Code::usage);
}

TEST_CASE("a new project is complete, and no placeholder is left in it") {
  const auto files = project_files(ProjectNames::from("acme.memory", ""));
  for (const char* path :
       {"memory.cpp", "plugin.json", "CMakeLists.txt", "README.md", ".github/workflows/build.yml", ".gitignore"}) {
    INFO(path);
    CHECK(files.count(path) == 1);
  }
  CHECK(files.size() == 6);
  for (const auto& [path, text] : files) {
    INFO(path);
    for (const char* placeholder :
         {"@NAME@", "@VENDOR@", "@STEM@", "@TARGET@", "@CLASS@", "@SUMMARY@", "@TENON_VERSION@"}) {
      CHECK(text.find(placeholder) == std::string::npos);
    }
  }
  CHECK_THAT(files.at("CMakeLists.txt"),
             Contains("tenon_add_plugin(acme_memory SOURCES memory.cpp FACTS plugin.json)"));
  const json::value facts = parse_json(files.at("plugin.json"), "plugin.json");
  CHECK(facts.at("name").as_string() == "acme.memory");
}

TEST_CASE("a project begun like a plugin that is there carries its code under names of its own") {
  const Scratch scratch;
  write(scratch.path() / "gates" / "plugin.json",
        R"({"schema": 1, "name": "tenon.gates", "vendor": "tenon", "summary": "not tenon.gates.two",
            "architectures": [{"name": "tenon.gates"}, {"name": "tenon.gates_middle"}, {"name": "tenon.other"}]})");
  write(
      scratch.path() / "gates" / "gates.cpp",
      "// tenon.gates: they open.\n#include <tenon/native.hpp>\nTENON_PLUGIN(\"tenon.gates\", \"tenon.gates_middle\", "
      "\"tenon.other\", base == \"tenon.transformer\");\n");
  const auto files = project_files_like(ProjectNames::from("acme.doors", ""), scratch.path() / "gates");
  CHECK(files.size() == 6);
  CHECK(files.at("doors.cpp") ==
        "// acme.doors: they open.\n#include <tenon/native.hpp>\nTENON_PLUGIN(\"acme.doors\", \"acme.doors_middle\", "
        "\"acme.other\", base == \"tenon.transformer\");\n");
  const json::value facts = parse_json(files.at("plugin.json"), "plugin.json");
  CHECK(facts.at("name").as_string() == "acme.doors");
  CHECK(facts.at("vendor").as_string() == "acme");
  CHECK(facts.at("summary").as_string() == "not tenon.gates.two");
  CHECK(facts.at("architectures").at(2).at("name").as_string() == "acme.other");
  CHECK_THAT(files.at("README.md"), Contains("begun as tenon.gates."));
}

TEST_CASE("plugin new writes into a folder that is new or empty, and overwrites nothing") {
  const Scratch scratch;
  const ProjectNames names = ProjectNames::from("acme.memory", "");
  write_project(names, project_files(names), scratch.path() / "fresh");
  CHECK(read(scratch.path() / "fresh" / "plugin.json") == project_files(names).at("plugin.json"));

  write(scratch.path() / "taken" / "mine.txt", "mine");
  const Error error = error_of([&] { write_project(names, project_files(names), scratch.path() / "taken"); });
  CHECK(error.code == Code::usage);
  CHECK_FALSE(std::filesystem::exists(scratch.path() / "taken" / "plugin.json"));
  CHECK(error_of([&] { write_project(names, project_files(names), scratch.path() / "taken" / "mine.txt"); }).code ==
        Code::usage);
}
