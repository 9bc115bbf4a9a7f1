// Opens what run, chat and eval are told to use: a composition by name, or a model alone (trunk, base, head).
#pragma once

#include "host/cli/command.hpp"
#include "host/composition/composition.hpp"

#include <memory>
#include <string>
#include <vector>

namespace tenon {

// The options every command has that runs a composition.
struct OpeningSettings {
  std::string name;
  bool strict = false, locked = false;
  std::vector<std::string> dev;
  std::string compute; // what products compute in; "": as the lock says, and a model alone in float32
};
void add_opening_options(CLI::App& command, OpeningSettings& settings);

// What loads for this command: the registry in use, and the plugins given with --dev.
Loader make_loader(const OpeningSettings& settings, Context& context);
// What loads in this format: where a file has to be derived first, and that takes long, it says how far it is; Ctrl-C
// ends it, and what was whole stays. Borrows the context.
Loader make_loader(Format format, const std::vector<std::string>& dev, Context& context);

// A composition runs as its lock says; where composition.json has moved on, that is said. With --locked it is refused,
// as is a yanked package, and every blob is hashed again first. Errors: not_found, naming what there is; those of
// loading.
std::unique_ptr<Composition> open_composition(const OpeningSettings& settings, Context& context);
// That so many matrices of a package are multiplied in float32 though packed products were asked for; none: nothing.
void say_float32(const std::string& title, std::size_t matrices, Context& context);

} // namespace tenon
