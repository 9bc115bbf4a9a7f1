// Where Tenon keeps its things. --home beats TENON_HOME beats $XDG_DATA_HOME/tenon beats ~/.local/share/tenon.
// Naming a folder creates nothing; whoever writes creates it.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace tenon {

class Home {
 public:
  static Home from_environment();
  explicit Home(const std::filesystem::path& root);

  // Errors (all of these): environment, if nothing says where home is.
  const std::filesystem::path& root() const;
  std::filesystem::path registry() const { return root() / "registry"; } // the default local registry
  std::filesystem::path store() const { return root() / "store"; } // private content-addressed copies of libraries
  std::filesystem::path cache() const { return root() / "cache"; } // derived: float32 weights, shards, streams
  std::filesystem::path compositions() const { return root() / "compositions"; }
  // Errors: usage, if the name is no safe folder name.
  std::filesystem::path composition(const std::string& name) const;

 private:
  std::filesystem::path root_;
};

// The rule above on any environment: returns the root, empty if nothing says where.
std::filesystem::path home_root(const std::function<const char*(const char*)>& environment);

} // namespace tenon
