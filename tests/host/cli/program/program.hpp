// The built program in a home of its own, and a small model for it.
#pragma once

#include "registry/base/json.hpp"
#include "tests/support/process.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>
#include <set>

namespace tenon {

namespace fs = std::filesystem;

struct World {
  World() {
    fs::create_directories(home());
    // General text of two kinds; what it says does not matter to a random model.
    for (const char* kind : {"prose", "numbers"}) {
      fs::create_directories(text() / kind);
      for (int file = 0; file < 4; ++file) {
        std::ofstream out(text() / kind / (std::to_string(file) + ".txt"));
        for (int line = 0; line < 40; ++line)
          out << kind << " number " << line * 37 + file * 1009 << " of many lines\n";
      }
    }
  }

  Finished call(std::vector<std::string> words, std::map<std::string, std::string> environment = {},
                Privileges privileges = Privileges::kept) const {
    words.insert(words.begin(), TENON_PROGRAM);
    environment.insert({"TENON_HOME", home().string()});
    environment.insert({"NO_COLOR", "1"});
    return run_program(words, environment, privileges);
  }
  Finished new_model(const std::string& name, const std::string& cut = "2:4",
                     const std::map<std::string, std::string>& environment = {}) const {
    return call({"model", "new", name, "--cut", cut, "--calibration", text().string()}, environment);
  }

  // The composition bot of a new model, toy, and an expert that was trained for two steps.
  const World& compose_trained(const std::string& name, const std::string& architecture,
                               const std::vector<std::string>& settings = {}) const {
    const std::string folder = (scratch.path() / name).string();
    std::vector<std::string> train = {
        "expert", "train", name, "--model", "toy", "--arch", architecture, "--data", (text() / "prose").string(),
        "--out",  folder};
    std::vector<std::string> set = {"train.steps=2", "data.sequence_length=32", "data.held_out_blocks=4",
                                    "general.blocks=4", "evaluate_blocks=2"};
    set.insert(set.end(), settings.begin(), settings.end());
    for (const std::string& one : set) train.insert(train.end(), {"--set", one});
    if (const Finished made = new_model("toy"); made.status != 0) throw std::runtime_error("model new: " + made.err);
    for (const auto& words : {train, {"publish", folder}, {"compose", "bot", "--model", "toy", name}})
      if (const Finished finished = call(words); finished.status != 0)
        throw std::runtime_error(words[0] + ": " + finished.out + finished.err);
    return *this;
  }

  fs::path home() const { return scratch.path() / "home"; }
  fs::path text() const { return scratch.path() / "text"; }
  fs::path blobs() const { return home() / "registry" / "blobs"; }

  // Every file under a folder, without locks, which stay.
  static std::set<std::string> files(const fs::path& folder) {
    std::set<std::string> found;
    if (!fs::exists(folder)) return found;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      const std::string name = entry.path().filename();
      if (entry.is_regular_file() && name != "lock" && name != ".lock") found.insert(entry.path());
    }
    return found;
  }

  Scratch scratch;
};

// Made once; tests that change it make their own.
inline const World& world_with_model() {
  static const World world;
  static const Finished made = world.new_model("toy");
  if (made.status != 0) throw std::runtime_error("model new failed: " + made.err);
  return world;
}

// The JSON object on standard output of a call that went well.
inline json::object json_of(const Finished& finished) {
  INFO(finished.out << finished.err);
  REQUIRE(finished.status == 0);
  return parse_json(finished.out, "stdout").as_object();
}

// A composition of the model and an expert that was trained for two steps.
inline const World& world_with_composition() {
  static const World world;
  static const World& composed = world.compose_trained("legal", "tenon.low_rank");
  return composed;
}

} // namespace tenon
