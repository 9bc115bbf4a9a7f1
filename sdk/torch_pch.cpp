// Nothing here: the target exists for its precompiled header, which kernels, host, plugins and tests reuse.
