// Bytes that a vocabulary lacks, written as lone surrogates: byte b as the three bytes of U+DC00+b (see tokenizer.hpp).
// Thread: any; pure functions.
#pragma once

#include <string>
#include <string_view>

namespace tenon {

void append_escape(std::string& out, unsigned char byte);

// True if the text starts with the three bytes of an escape.
bool starts_with_escape(std::string_view text);

// Undoes escapes from the start of raw and appends the bytes to out; returns how much of raw was used. Unless last,
// an escape that is cut off by the end stays in raw.
std::size_t unescape(std::string_view raw, bool last, std::string& out);

} // namespace tenon
