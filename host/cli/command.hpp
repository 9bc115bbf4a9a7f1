// What every command is given, and how a command is written.
//
// One file per command, named after it: run.cpp, model_import.cpp. It defines
//
//   void add_run(CLI::App& app, Context& context);
//
// which main.cpp lists in its one table. Plain verbs hang on `app` itself (run, chat, eval, compose, ...); noun-verb
// commands (model import, expert train, plugin new) hang on noun(app, "model", ...). The function declares options into
// a std::shared_ptr of its own settings and sets the callback; the callback does the work:
//
//   struct Settings { std::string composition; };
//   void add_show(CLI::App& app, Context& context) {
//     auto settings = std::make_shared<Settings>();
//     CLI::App* command = app.add_subcommand("show", "Show one package or composition");
//     command->add_option("name", settings->composition, "What to show")->required();
//     examples(*command, {"tenon show smollm2", "tenon show legal@1.2.0 --json"});
//     command->callback([settings, &context] { show(*settings, context); });
//   }
//
// A command says what changed and what to run next (Output::note, next), reports failure by throwing tenon::Error, and
// never calls exit. Flags in Context hold only inside the callback. LibTorch headers stay out of main and of commands
// that need no tensors.
#pragma once

#include "host/cli/home.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/output.hpp"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace tenon {

struct Context {
  Context() = default;
  Context(const Context&) = delete;

  Flags flags;
  Output out{flags};
  Home home = Home::from_environment();
  // The registry to use: --registry DIR beats TENON_REGISTRY beats home.registry().
  std::filesystem::path registry() const { return registry_given.empty() ? home.registry() : registry_given; }

  std::filesystem::path registry_given = {};
};

// The subcommand that holds a noun's verbs, made at the first call.
CLI::App* noun(CLI::App& app, const std::string& name, const std::string& description);
// Lines shown under "Examples:" at the end of --help.
void examples(CLI::App& command, const std::vector<std::string>& lines);

// The program's root: name, version, the flags every command understands. No commands yet.
void set_up_root(CLI::App& app, Context& context);
// Parses and runs; everything thrown becomes a message and an exit status. Returns the status.
int run_command(CLI::App& app, Context& context, int argc, const char* const* argv);

} // namespace tenon
