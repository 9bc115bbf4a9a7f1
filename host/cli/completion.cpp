#include "host/cli/completion.hpp"

#include "host/cli/command.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

struct Place {
  std::string path; // "tenon model import"
  std::string description;
  std::vector<std::string> commands, options;
};

void collect(const CLI::App& app, const std::string& path, const std::vector<std::string>& inherited,
             std::vector<Place>& places) {
  Place place{path, app.get_description(), {}, inherited};
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      const bool known = std::find(inherited.begin(), inherited.end(), "--" + name) != inherited.end();
      if (!known) place.options.push_back("--" + name);
    }
  }
  const auto children = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* child : children) place.commands.push_back(child->get_name());
  const std::vector<std::string> options = place.options;
  places.push_back(std::move(place));
  for (const CLI::App* child : children) collect(*child, path + " " + child->get_name(), options, places);
}

std::string bash_script(const std::vector<Place>& places) {
  std::string cases;
  for (const Place& place : places) {
    cases += fmt::format("    '{}') words='{}{}{}' ;;\n", place.path, joined(place.commands, " "),
                         place.commands.empty() ? "" : " ", joined(place.options, " "));
  }
  std::string known;
  for (const Place& place : places) known += fmt::format("{}'{}'", known.empty() ? "" : "|", place.path);
  return "# bash completion for tenon; put it in ~/.local/share/bash-completion/completions/tenon\n"
         "_tenon() {\n"
         "  local at=tenon words='' i\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    case \"$at ${COMP_WORDS[i]}\" in\n"
         "      " +
         known +
         ") at=\"$at ${COMP_WORDS[i]}\" ;;\n"
         "    esac\n"
         "  done\n"
         "  case \"$at\" in\n" +
         cases +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\n"
         "complete -o default -F _tenon tenon\n";
}

// zsh speaks bash's completion well enough, and one script is kept right more easily than two.
std::string zsh_script(const std::vector<Place>& places) {
  return "# zsh completion for tenon; source it from ~/.zshrc\n"
         "autoload -U +X bashcompinit && bashcompinit\n" +
         bash_script(places);
}

std::string fish_quoted(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\'' ? std::string("\\'") : std::string(1, c);
  return "'" + out + "'";
}

// Whether the line so far is this command's: its words, options between them.
std::string fish_condition(const std::string& path, const char* end) {
  constexpr const char* options = "( -\\S+( [^-]\\S*)?)*";
  std::string pattern = "^";
  for (const char c : path) pattern += c == ' ' ? std::string(options) + " " : std::string(1, c);
  return "string match -qr -- '" + pattern + options + end + "' (commandline -opc | string join ' ')";
}

std::string fish_script(const std::vector<Place>& places) {
  std::string text = "# fish completion for tenon; put it in ~/.config/fish/completions/tenon.fish\n";
  for (const Place& place : places) {
    if (!place.commands.empty())
      text += fmt::format("complete -c tenon -f -n {} -a {}\n", fish_quoted(fish_condition(place.path, "$")),
                          fish_quoted(joined(place.commands, " ")));
    for (const std::string& option : place.options)
      text += fmt::format("complete -c tenon -n {} -l {}\n", fish_quoted(fish_condition(place.path, "( |$)")),
                          option.substr(2));
  }
  return text;
}

} // namespace

std::string completion_script(const CLI::App& root, const std::string& shell) {
  std::vector<Place> places;
  collect(root, "tenon", {}, places);
  if (shell == "bash") return bash_script(places);
  if (shell == "zsh") return zsh_script(places);
  if (shell == "fish") return fish_script(places);
  throw Error(Code::usage, "completion", "found the shell \"" + shell + "\"; need bash, zsh or fish");
}

void add_completion(CLI::App& app, Context& context) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "Print a completion script for bash, zsh or fish");
  command->add_option("shell", *shell, "bash, zsh or fish")->required()->type_name("SHELL");
  examples(*command, {"tenon completion bash > ~/.local/share/bash-completion/completions/tenon",
                      "tenon completion fish > ~/.config/fish/completions/tenon.fish"});
  command->callback([shell, &app, &context] { context.out.stream(completion_script(app, *shell)); });
}

} // namespace tenon
