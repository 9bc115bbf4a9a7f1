// tenon yank: a version that nobody should newly take. Locks that name it go on, with a warning.
#include "host/cli/registry_view.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

struct Settings {
  std::string package, reason;
  bool undo = false;
};

void yank(const Settings& settings, Context& context) {
  const auto at = settings.package.find('@');
  if (at == std::string::npos)
    throw Error(Code::usage, "yank", fmt::format("found \"{}\", need a name and an exact version", settings.package),
                "say which version: tenon yank NAME@1.2.0");
  const std::string name = settings.package.substr(0, at);
  std::string_view version_text = std::string_view(settings.package).substr(at + 1);
  if (version_text.starts_with("=")) version_text.remove_prefix(1);
  const Version version = Version::parse(version_text);
  const Registry registry = open_registry(context);
  if (settings.undo)
    registry.unyank(name, version);
  else
    registry.yank(name, version, settings.reason);
  if (context.flags.json) {
    context.out.json(package_json(registry.show(name)));
    return;
  }
  context.out.line(fmt::format("{} {} {}", settings.undo ? "took back the yank of" : "yanked", name, version.text()));
  if (settings.undo) return;
  context.out.note("nobody will newly take it; compositions whose lock names it go on, with a warning");
  context.out.next(fmt::format("tenon yank {}@{} --undo   (to take this back)", name, version.text()));
}

} // namespace

void add_yank(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = app.add_subcommand("yank", "Withdraw a published version from new compositions");
  command->add_option("package", settings->package, "NAME@VERSION")->required();
  command->add_option("--reason", settings->reason, "Why, in one line: everybody who locked it will read this");
  command->add_flag("--undo", settings->undo, "Take a yank back");
  examples(*command, {"tenon yank legal@1.2.0 --reason \"leaks names\"", "tenon yank legal@1.2.0 --undo"});
  command->callback([settings, &context] { yank(*settings, context); });
}

} // namespace tenon
