// The program: one table of commands. Each command lives in a file of its own name.
#include "host/cli/command.hpp"

namespace tenon {

void add_doctor(CLI::App& app, Context& context);
void add_completion(CLI::App& app, Context& context);
void add_plugin(CLI::App& app, Context& context);

} // namespace tenon

int main(int argc, char** argv) {
  using namespace tenon;
  install_interrupt_handler();
  CLI::App app("A frozen language model with middle experts that others make");
  Context context;
  set_up_root(app, context);
  for (const auto add : {
           add_doctor,
           add_completion,
           add_plugin,
       }) {
    add(app, context);
  }
  examples(app, {"tenon doctor", "tenon completion bash > ~/.local/share/bash-completion/completions/tenon"});
  return run_command(app, context, argc, argv);
}
