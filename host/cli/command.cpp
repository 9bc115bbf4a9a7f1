#include "host/cli/command.hpp"

#include "host/cli/suggest.hpp"

#include <algorithm>
#include <new>

namespace tenon {
namespace {

std::vector<std::string> words_of(int argc, const char* const* argv) {
  return argc > 1 ? std::vector<std::string>(argv + 1, argv + argc) : std::vector<std::string>();
}

int report(Context& context, const Error& error) {
  context.out.error(error);
  return exit_status(error.code);
}

int usage_error(CLI::App& app, Context& context, const CLI::ParseError& error, const std::vector<std::string>& words) {
  // The flags are not set where parsing stopped early.
  if (std::find(words.begin(), words.end(), "--json") != words.end()) context.flags.json = true;
  const Mistake mistake = find_mistake(app, words);
  if (!mistake.message.empty()) return report(context, Error(Code::usage, "cli", mistake.message, mistake.remedy));
  const std::string command = full_name(*addressed_command(app, words));
  return report(context, Error(Code::usage, "cli", command + ": " + error.what(), "see: " + command + " --help"));
}

// A line that names no command, or a noun without its verb, asks what there is.
int show_help(const CLI::App& app, Context& context) {
  context.out.stream(app.help(app.get_parent() ? full_name(*app.get_parent()) : ""));
  return 0;
}

const CLI::App* innermost(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? &app : innermost(*chosen.front());
}

int parse_and_run(CLI::App& app, Context& context, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return show_help(*addressed_command(app, words_of(argc, argv)), context);
  } catch (const CLI::CallForVersion& version) {
    context.out.line(version.what());
    return 0;
  } catch (const CLI::ParseError& error) {
    return usage_error(app, context, error, words_of(argc, argv));
  }
  const CLI::App* command = innermost(app);
  const bool has_verbs = !command->get_subcommands([](const CLI::App*) { return true; }).empty();
  return has_verbs ? show_help(*command, context) : 0;
}

} // namespace

CLI::App* noun(CLI::App& app, const std::string& name, const std::string& description) {
  for (CLI::App* known : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (known->get_name() == name) return known;
  }
  CLI::App* made = app.add_subcommand(name, description);
  made->require_subcommand(0, 1);
  return made;
}

void examples(CLI::App& command, const std::vector<std::string>& lines) {
  std::string text = "Examples:";
  for (const std::string& line : lines) text += "\n  " + line;
  command.footer(text);
}

void set_up_root(CLI::App& app, Context& context) {
  app.name("tenon");
  app.require_subcommand(0, 1);
  app.fallthrough(); // inherited: the flags below may stand after a command, too
  app.set_help_flag("-h,--help", "Show this help");
  app.set_version_flag("--version", TENON_VERSION, "Show the version");
  app.add_flag("--json", context.flags.json, "One JSON value on stdout; errors as JSON on stderr");
  app.add_flag("--plain", context.flags.plain, "Tab-separated lines, no bars: for scripts");
  app.add_flag("-q,--quiet", context.flags.quiet, "Only results and errors");
  app.add_flag("--no-color", context.flags.no_color, "No colours (as NO_COLOR=1 or TERM=dumb)");
  app.add_flag("--no-input", context.flags.no_input, "Never ask anything");
  app.add_option_function<std::string>(
         "--home", [&context](const std::string& root) { context.home = Home(root); },
         "Where Tenon keeps its things (TENON_HOME)")
      ->type_name("DIR");
  app.add_option("--registry", context.registry_given, "The registry to use, in place of the one at home")
      ->type_name("DIR")
      ->envname("TENON_REGISTRY");
}

int run_command(CLI::App& app, Context& context, int argc, const char* const* argv) {
  try {
    const int status = parse_and_run(app, context, argc, argv);
    context.out.flush(); // what stood in a buffer may be what finds no room
    return status;
  } catch (const OutputClosed&) {
    return OutputClosed::kExit;
  } catch (const Error& error) {
    return report(context, error);
  } catch (const std::bad_alloc&) {
    return report(context, Error(Code::environment, "memory", "the system has no memory left for this",
                                 "close other programs, or give smaller sizes"));
  } catch (const std::filesystem::filesystem_error& error) {
    return report(context, Error(Code::environment, "files", error.what(), ""));
  } catch (const std::exception& error) {
    return report(context, Error(Code::bug, "tenon", error.what(), "this is a mistake in Tenon; please report it"));
  }
}

} // namespace tenon
