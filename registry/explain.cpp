#include "registry/explain.hpp"

#include "registry/rules.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {
namespace {

constexpr std::size_t kShown = 8;

// How many letters have to change. Names are short, so the whole table fits.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
    }
  }
  return row[b.size()];
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < std::min(words.size(), kShown); ++i) text += (i ? ", " : "") + words[i];
  if (words.size() > kShown) text += fmt::format(" and {} more", words.size() - kShown);
  return text;
}

} // namespace

std::string near_names(std::string_view name, const std::vector<std::string>& known) {
  std::vector<std::string> near;
  if (name.size() <= 64)
    for (const std::string& other : known)
      if (edit_distance(name, other) <= 1 + name.size() / 4) near.push_back(other);
  if (!near.empty()) return "did you mean " + joined(near) + "?";
  if (known.empty()) return "nothing is published there yet";
  return "see what is published: tenon list";
}

std::string yanked_text(const std::string& name, const PublishedVersion& version) {
  const std::string reason = version.yank_reason.empty() ? "" : ": " + version.yank_reason;
  return fmt::format("{} {} was yanked{}", name, version.version.text(), reason);
}

Error no_version_error(const PublishedPackage& package, const PackageRequest& request) {
  std::vector<std::string> there, yanked;
  bool pre_release = false;
  for (const PublishedVersion& version : package.versions) {
    there.push_back(version.version.text() + (version.yanked ? " (yanked)" : ""));
    if (!request.range.matches(version.version))
      pre_release |= !version.yanked && !version.version.pre.empty();
    else if (version.yanked)
      yanked.push_back(yanked_text(package.name, version));
  }
  if (!yanked.empty())
    return Error(
        Code::not_found, rules::kRange,
        fmt::format("every version of {} in {} was yanked: {}", package.name, request.range.text(), joined(yanked)),
        "ask for another range; there is " + joined(there));
  return Error(Code::not_found, rules::kRange,
               fmt::format("no version of {} is in {}, there is {}", package.name, request.range.text(), joined(there)),
               pre_release ? "a pre-release is only taken by a range that names one, as =" +
                                 package.versions.front().version.text() + " does"
                           : "ask for one of these");
}

Error no_build_error(const PublishedPackage& package, const PublishedVersion& version, std::string_view platform) {
  std::vector<std::string> builds;
  for (const Build& build : version.builds) builds.push_back(build.platform);
  return Error(
      Code::incompatible, rules::kPlatform,
      fmt::format("{} {}: built for {}, host is {}", package.name, version.version.text(), joined(builds), platform),
      "build it here from its source, and publish that: tenon publish PATH.so");
}

} // namespace tenon
