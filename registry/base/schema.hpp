// JSON Schema (draft 7, through valijson): what a configuration may say, checked before anything runs.
#pragma once

#include "registry/base/json.hpp"

#include <memory>
#include <string>
#include <vector>

namespace tenon {

class Schema {
 public:
  // where names the schema in messages. Errors: integrity when it is no valid schema.
  Schema(const json::value& schema, std::string where);
  ~Schema();
  Schema(Schema&&) noexcept;

  // One line a problem, each naming the field's path and what was expected; empty when the value conforms.
  std::vector<std::string> problems(const json::value& value) const;
  // A copy of the value with the schema's `default`s filled in at the top level and in nested objects.
  json::value with_defaults(const json::value& value) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

} // namespace tenon
