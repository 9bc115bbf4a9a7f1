#include "registry/base/error.hpp"

namespace tenon {

int exit_status(Code code) {
  switch (code) {
    case Code::usage: return 2;
    case Code::not_found: return 3;
    case Code::incompatible: return 4;
    case Code::integrity: return 5;
    case Code::numeric: return 6;
    case Code::plugin: return 7;
    case Code::interrupted: return 130;
    case Code::environment:
    case Code::bug: return 1;
  }
  return 1;
}

const char* code_name(Code code) {
  switch (code) {
    case Code::usage: return "usage";
    case Code::not_found: return "not-found";
    case Code::incompatible: return "incompatible";
    case Code::integrity: return "integrity";
    case Code::plugin: return "plugin";
    case Code::environment: return "environment";
    case Code::numeric: return "numeric";
    case Code::interrupted: return "interrupted";
    case Code::bug: return "bug";
  }
  return "bug";
}

Error::Error(Code code, std::string unit, std::string message, std::string remedy)
    : code(code), unit(std::move(unit)), message(std::move(message)), remedy(std::move(remedy)) {
  text_ = "[" + this->unit + "] " + this->message;
  if (!this->remedy.empty()) text_ += "; " + this->remedy;
}

} // namespace tenon
