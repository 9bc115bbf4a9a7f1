#include <tenon/plugin.h>

const tenon_plugin* tenon_plugin_entry(void);
const tenon_plugin* tenon_plugin_entry(void) { return 0; }
