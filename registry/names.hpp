// Names, kinds and digests as every package states them.
//
// A name is ASCII, at most 64 characters: a lower-case letter, then lower-case letters, digits and single . - _ between
// them. A plugin's name is vendor.name. Two names that differ only in - and _ collide, and the second is refused.
// Thread: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tenon {

enum class Kind { model, plugin, expert };

const char* kind_name(Kind kind); // "model", "plugin", "expert"
std::string a_kind(Kind kind);    // "a model", "an expert"
std::optional<Kind> kind_of(std::string_view text);

// Why the name is refused, in words for its author; empty when it may stand.
std::string name_problem(std::string_view name);
std::string name_problem(std::string_view name, Kind kind); // and the rule for the kind

// Errors: usage, rule TN-R5, with what a name may look like.
void require_name(std::string_view name, Kind kind);

// Names that may not live beside each other have one key.
std::string collision_key(std::string_view name);

// A digest is "sha256:" and 64 lower-case hex digits.
bool is_digest(std::string_view text);
std::string digest_of_text(std::string_view text);

// A path inside a package: relative, forward slashes, no "." or ".." or empty or hidden part, printable ASCII, at most
// 255 characters. Empty when it may stand.
std::string package_path_problem(std::string_view path);

// One line of text that a terminal may show: no control characters. Empty when it may stand.
std::string line_problem(std::string_view text);

} // namespace tenon
