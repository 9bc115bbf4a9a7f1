// tenon list: what is published.
#include "host/cli/registry_view.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

json::object refusal_json(const Refusal& refusal) {
  return {{"code", code_name(refusal.code)},
          {"rule", refusal.rule},
          {"message", refusal.message},
          {"remedy", refusal.remedy}};
}

void list(const std::string& kind, Context& context) {
  const Registry registry = open_registry(context);
  Listing listing = registry.list();
  if (!kind.empty())
    std::erase_if(listing.packages, [&](const auto& package) { return kind_name(package.kind) != kind; });
  for (const Refusal& damage : listing.damaged)
    context.out.warn(fmt::format("[{}] {}; {}", damage.rule, damage.message, damage.remedy));
  if (context.flags.json) {
    json::array packages, damaged;
    for (const PublishedPackage& package : listing.packages) packages.push_back(package_json(package));
    for (const Refusal& damage : listing.damaged) damaged.push_back(refusal_json(damage));
    context.out.json(
        json::object{{"registry", registry.path().string()}, {"packages", packages}, {"damaged", damaged}});
    return;
  }
  if (!listing.packages.empty()) return show_packages(context, registry, listing.packages);
  context.out.note(fmt::format("{} holds no {} yet", registry.path().string(), kind.empty() ? "package" : kind));
  context.out.next("tenon model import FILE.gguf --cut A:Z");
}

} // namespace

void add_list(CLI::App& app, Context& context) {
  auto kind = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("list", "List what a registry holds");
  command->add_option("--kind", *kind, "Only these")->check(CLI::IsMember({"model", "plugin", "expert"}));
  examples(*command, {"tenon list", "tenon list --kind expert", "tenon list --registry /srv/experts --json"});
  command->callback([kind, &context] { list(*kind, context); });
}

} // namespace tenon
