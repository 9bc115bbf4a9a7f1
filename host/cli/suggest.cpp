#include "host/cli/suggest.hpp"

#include <algorithm>

namespace tenon {
namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!child->get_name().empty()) names.push_back(child->get_name());
  }
  return names;
}

// Every option that may stand where this command's may: its own and its parents'.
std::vector<const CLI::Option*> reachable_options(const CLI::App& command) {
  std::vector<const CLI::Option*> options;
  for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : app->get_options()) options.push_back(option);
  }
  return options;
}

const CLI::App* child_named(const CLI::App& app, const std::string& name) {
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (child->get_name() == name) return child;
  }
  return nullptr;
}

const CLI::Option* option_named(const CLI::App& command, const std::string& word) {
  const std::string name = word.substr(0, word.find('='));
  for (const CLI::Option* option : reachable_options(command)) {
    if (option->check_name(name)) return option;
  }
  return nullptr;
}

// Does this option take the next word as its value?
bool takes_next_word(const CLI::Option& option, const std::string& word) {
  return option.get_type_size_max() > 0 && option.get_items_expected_max() > 0 && word.find('=') == std::string::npos;
}

// Calls visit(word, command) for every word that should be a command or an option; stops when it returns true.
template <class Visit>
const CLI::App* walk(const CLI::App& root, const std::vector<std::string>& words, const Visit& visit) {
  const CLI::App* command = &root;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") break;
    if (word.size() > 1 && word.front() == '-') {
      if (visit(word, *command)) break;
      const CLI::Option* option = option_named(*command, word);
      if (option && takes_next_word(*option, word)) ++i;
    } else if (const CLI::App* child = child_named(*command, word)) {
      command = child;
    } else if (!command_names(*command).empty()) {
      if (visit(word, *command)) break;
    }
  }
  return command;
}

Mistake unknown_command(const std::string& word, const CLI::App& command) {
  const std::string meant = nearest(word, command_names(command));
  return {
      "there is no command \"" + (command.get_parent() ? full_name(command) + " " : std::string()) + word + "\"",
      meant.empty() ? "see: " + full_name(command) + " --help" : "did you mean: " + full_name(command) + " " + meant};
}

Mistake unknown_option(const std::string& word, const CLI::App& command) {
  const std::string name = word.substr(0, word.find('='));
  std::vector<std::string> known;
  for (const CLI::Option* option : reachable_options(command)) {
    for (const std::string& long_name : option->get_lnames()) known.push_back("--" + long_name);
  }
  const std::string meant = nearest(name, known);
  return {full_name(command) + " has no option " + name,
          meant.empty() ? "see: " + full_name(command) + " --help" : "did you mean: " + meant};
}

// Is this the negative number some option or argument may want?
bool is_number(const std::string& word) {
  return word.size() > 1 && (std::isdigit(static_cast<unsigned char>(word[1])) || word[1] == '.');
}

} // namespace

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      const std::size_t replace = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, replace});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  constexpr std::size_t kLongestWord = 64; // nobody mistypes more; keeps the table small
  if (word.size() > kLongestWord) return "";
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const bool begins = word.size() >= 2 && candidate.starts_with(word);
    const std::size_t distance = begins ? 1 : edit_distance(word, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

Mistake find_mistake(const CLI::App& root, const std::vector<std::string>& words) {
  Mistake mistake;
  walk(root, words, [&](const std::string& word, const CLI::App& command) {
    if (word.front() != '-') {
      mistake = unknown_command(word, command);
      return true;
    }
    if (option_named(command, word) || is_number(word)) return false;
    const bool bundle_or_value = word[1] != '-' && option_named(command, word.substr(0, 2)); // -qn, -o3
    if (bundle_or_value) return false;
    mistake = unknown_option(word, command);
    return true;
  });
  return mistake;
}

const CLI::App* addressed_command(const CLI::App& root, const std::vector<std::string>& words) {
  return walk(root, words, [](const std::string&, const CLI::App&) { return false; });
}

std::string full_name(const CLI::App& command) {
  const std::string own = command.get_name();
  return command.get_parent() ? full_name(*command.get_parent()) + " " + own : own;
}

} // namespace tenon
