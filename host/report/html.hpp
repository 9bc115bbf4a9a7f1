// Text into a page. Names and texts come from strangers: everything goes through here, nothing is markup by accident.
// Thread: pure functions.
#pragma once

#include "registry/base/json.hpp"

#include <string>
#include <string_view>

namespace tenon {

// For element text and quoted attributes. Bytes that are no UTF-8 become U+FFFD, control characters their pictures
// (U+2400 on), new lines and tabs stay.
std::string html_text(std::string_view text);

// For the inside of a <script type="application/json">: no "<", ">" or "&" is left.
std::string html_json(const json::value& value);

} // namespace tenon
