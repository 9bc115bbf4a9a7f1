// The one exception type of Tenon, and the value for an ordinary refusal.
//
// Throw Error when a thing asked for cannot be done. Return a Refusal where "no" is a normal answer (this expert does
// not fit); a Refusal becomes an Error only where somebody insists.
// Thread: values; any thread.
#pragma once

#include <exception>
#include <string>

namespace tenon {

// Who has to act, by culprit. Each code has one exit status (exit_status below).
enum class Code {
  usage,        // caller: the words or the input data are wrong
  not_found,    // caller: what was named is not there
  incompatible, // package: sound, but does not fit what it is asked to join
  integrity,    // package: malformed, damaged or not what its digest says
  plugin,       // plugin: its code failed
  environment,  // environment: disk, permission, memory, missing tool
  numeric,      // numeric: not finite, diverged
  interrupted,  // the user stopped it
  bug,          // Tenon itself
};

// Exit status of the program: 0 ok, 1 failure, 2 usage, 3 not found, 4 incompatible, 5 integrity or signature,
// 6 numeric, 7 plugin fault, 130 interrupted.
int exit_status(Code code);

// "usage", "not-found", ... as it stands in --json output.
const char* code_name(Code code);

class Error : public std::exception {
 public:
  // unit: what speaks ("gguf", "TN-P2 platform"); message: found and needed, both sides; remedy: what to do, or "".
  Error(Code code, std::string unit, std::string message, std::string remedy = "");

  const char* what() const noexcept override { return text_.c_str(); } // "[unit] message; remedy"

  Code code;
  std::string unit, message, remedy;

 private:
  std::string text_;
};

// A "no" with its reason. rule is stable and documented: "TN-P2 platform".
struct Refusal {
  Code code;
  std::string rule;
  std::string message;
  std::string remedy;

  Error to_error() const { return Error(code, rule, message, remedy); }
};

} // namespace tenon
