// The fields that a JSON Schema of draft 7 describes, as a table for people: name, what it takes, default, what it is.
// Thread: any.
#pragma once

#include "host/cli/output.hpp"
#include "registry/base/json.hpp"

namespace tenon {

// Fields of fields stand by their path: train.steps. Requires: an object's schema.
Table fields_table(const json::object& schema);

} // namespace tenon
