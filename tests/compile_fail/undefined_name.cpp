#include <tenon/plugin.h>

extern "C" int nobody_has_this(void);
extern "C" TENON_EXPORT const tenon_plugin* tenon_plugin_entry(void) { return nobody_has_this() ? nullptr : nullptr; }
