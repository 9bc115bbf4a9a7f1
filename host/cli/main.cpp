// The program: one table of commands. Each command lives in a file of its own name.
#include "host/cli/command.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

namespace tenon {

void add_doctor(CLI::App& app, Context& context);
void add_completion(CLI::App& app, Context& context);
void add_plugin(CLI::App& app, Context& context);
void add_model(CLI::App& app, Context& context);
void add_model_pack(CLI::App& app, Context& context);
void add_publish(CLI::App& app, Context& context);
void add_compose(CLI::App& app, Context& context);
void add_add(CLI::App& app, Context& context);
void add_remove(CLI::App& app, Context& context);
void add_list(CLI::App& app, Context& context);
void add_show(CLI::App& app, Context& context);
void add_search(CLI::App& app, Context& context);
void add_verify(CLI::App& app, Context& context);
void add_yank(CLI::App& app, Context& context);
void add_expert_train(CLI::App& app, Context& context);
void add_expert_import(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_run(CLI::App& app, Context& context);
void add_chat(CLI::App& app, Context& context);
void add_eval(CLI::App& app, Context& context);
void add_trace(CLI::App& app, Context& context);

} // namespace tenon

// Whoever starts a program may have closed its standard streams; the next file that is opened would take their place.
// Input is then at its end, and output an error.
static void open_missing_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(stream, F_GETFD) < 0) (void)open("/dev/null", stream == STDERR_FILENO ? O_WRONLY : O_RDONLY);
}

int main(int argc, char** argv) {
  using namespace tenon;
  open_missing_streams();
  install_interrupt_handler();
  signal(SIGXFSZ, SIG_IGN); // a file that may not grow is then an error as any other
  CLI::App app("A frozen language model with middle experts that others make");
  Context context;
  set_up_root(app, context);
  for (const auto add : {
           add_doctor,       add_completion,    add_plugin, add_model, add_model_pack, add_publish, add_compose,
           add_add,          add_remove,        add_list,   add_show,  add_search,     add_verify,  add_yank,
           add_expert_train, add_expert_import, add_run,    add_chat,  add_eval,       add_trace,   add_bench,
       }) {
    add(app, context);
  }
  examples(app, {"tenon doctor", "tenon completion bash > ~/.local/share/bash-completion/completions/tenon"});
  app.footer(app.get_footer() + R"(

Environment:
  TENON_HOME      where Tenon keeps its things (--home)
  TENON_REGISTRY  the registry to use (--registry)
  TENON_TIER      kernels: reference, avx2 or avx512 (default: the best that this processor has)
  TENON_THREADS   1 to 1024 (default: as many as processors that this process may use)
  TENON_PAGES     packed weights: mapped (default), or huge, copied once into 2 MiB pages
  TENON_KEYS      keys and values beside packed products: bf16 (default), float32 or int8
  NO_COLOR        no colours (--no-color))");
  return run_command(app, context, argc, argv);
}
