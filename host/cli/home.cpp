#include "host/cli/home.hpp"

#include "registry/base/error.hpp"

#include <cstdlib>

namespace tenon {

std::filesystem::path home_root(const std::function<const char*(const char*)>& environment) {
  const auto get = [&](const char* name) -> std::string {
    const char* value = environment(name);
    return value ? value : "";
  };
  if (const std::string given = get("TENON_HOME"); !given.empty()) return given;
  // The XDG rule: a relative path there is to be ignored.
  if (const std::filesystem::path data = get("XDG_DATA_HOME"); data.is_absolute()) return data / "tenon";
  if (const std::string user = get("HOME"); !user.empty()) {
    return std::filesystem::path(user) / ".local" / "share" / "tenon";
  }
  return {};
}

Home Home::from_environment() {
  return Home(home_root([](const char* name) { return std::getenv(name); }));
}

Home::Home(const std::filesystem::path& root) {
  if (!root.empty()) root_ = std::filesystem::absolute(root).lexically_normal();
}

const std::filesystem::path& Home::root() const {
  if (root_.empty()) {
    throw Error(Code::environment, "home", "neither TENON_HOME, XDG_DATA_HOME nor HOME says where Tenon's files are",
                "set TENON_HOME, or give --home DIR");
  }
  return root_;
}

std::filesystem::path Home::composition(const std::string& name) const {
  const std::string allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  if (name.empty() || name.size() > 64 || name.front() == '.' || name.find_first_not_of(allowed) != std::string::npos) {
    throw Error(Code::usage, "composition", "found the name \"" + name + "\"; need letters, digits, '-', '_' or '.'",
                "at most 64 of them, the first not a dot");
  }
  return compositions() / name;
}

} // namespace tenon
