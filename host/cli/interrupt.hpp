// Ctrl-C. The first asks a command that polls interrupted() to stop tidily; the second, or the first in a command that
// does not poll, ends the program at once with status 130. Files are written atomically, so that loses nothing.
#pragma once

namespace tenon {

// Called once by main.
void install_interrupt_handler();

// True after the first Ctrl-C (or SIGTERM, or SIGHUP where the terminal closes). Poll it in long loops, finish the
// step, save, then throw Error{Code::interrupted, ...} saying how to go on. Thread: any.
bool interrupted() noexcept;

// Waits until something can be read from `descriptor` (its end counts). Ctrl-C ends the wait at once: false then, and
// where it came before. waits: or else looks whether something can be. Errors: environment, where it cannot be waited
// for.
bool wait_for_input(int descriptor, bool waits = true);

} // namespace tenon
