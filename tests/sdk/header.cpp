#include <tenon/plugin.h>

extern "C" const tenon_plugin* tenon_plugin_entry(void) { return nullptr; }
