// tenon search: packages by the words in their names, summaries and manifests.
#include "host/cli/registry_view.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

void search(const std::vector<std::string>& words, Context& context) {
  const Registry registry = open_registry(context);
  const std::string text = joined(words, " ");
  const std::vector<PublishedPackage> found = registry.search(text);
  if (context.flags.json) {
    json::array packages;
    for (const PublishedPackage& package : found) packages.push_back(package_json(package));
    context.out.json(json::object{{"registry", registry.path().string()}, {"words", text}, {"packages", packages}});
  } else if (found.empty()) {
    context.out.note(fmt::format("nothing in {} speaks of \"{}\"", registry.path().string(), text));
    context.out.next("tenon list");
  } else {
    show_packages(context, registry, found);
  }
}

} // namespace

void add_search(CLI::App& app, Context& context) {
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand("search", "Find packages by words in what they say of themselves");
  command->add_option("words", *words, "All of them have to occur; capitals do not matter")->required();
  examples(*command, {"tenon search contract law", "tenon search acme. --json"});
  command->callback([words, &context] { search(*words, context); });
}

} // namespace tenon
