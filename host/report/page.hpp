// The look and the manners of the report's page: one style sheet, one small script. Inside the folder only.
#pragma once

namespace tenon {

extern const char* const kPageStyle;  // CSS; light and dark, narrow and wide
extern const char* const kPageScript; // tooltips, and what passages are coloured by; marks <html data-ready>

} // namespace tenon
