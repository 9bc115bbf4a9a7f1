// The project that `tenon plugin new` writes: files embedded in the program when it is built, from sdk/template/.
#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace tenon {

struct ProjectNames {
  std::string name;   // "acme.memory"
  std::string vendor; // "acme"
  std::string stem;   // "memory"
  std::string target; // "acme_memory"
  std::string type;   // "Memory"

  // name: "acme.memory", or "memory" beside a vendor. Errors: usage, with what a name looks like.
  static ProjectNames from(const std::string& name, const std::string& vendor);
};

// Path in the project -> text, placeholders replaced.
using ProjectFiles = std::map<std::string, std::string>;
ProjectFiles project_files(const ProjectNames& names);

// The same around the code of a plugin that comes with Tenon: source is its folder, with plugin.json and one .cpp. Its
// name becomes names.name, in its architectures' names too.
ProjectFiles project_files_like(const ProjectNames& names, const std::filesystem::path& source);

// Errors: usage, if the folder is there and not empty; environment. Nothing is overwritten.
void write_project(const ProjectNames& names, const ProjectFiles& files, const std::filesystem::path& folder);

} // namespace tenon
