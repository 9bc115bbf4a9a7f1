// Fields that several of the registry's files have, read from untrusted JSON.
// Errors: integrity, naming file and path. Thread: any.
#pragma once

#include "registry/base/json.hpp"
#include "registry/names.hpp"
#include "registry/version.hpp"

#include <string>

namespace tenon {

std::string digest_at(const JsonReader& reader);
Version version_at(const JsonReader& reader);
Kind kind_at(const JsonReader& reader);
std::string name_at(const JsonReader& reader);
std::string name_at(const JsonReader& reader, Kind kind); // and the rule for the kind
std::string line_at(const JsonReader& reader);            // no control characters

} // namespace tenon
