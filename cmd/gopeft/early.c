// Answers `gopeft --help` before libtorch has started.
//
// Before main runs, the dynamic loader runs the initialisers of every library, and those of libtorch take 0.2 s to
// register its operators. Help and the version need none of them. The loader runs a program's preinit functions
// earlier than all initialisers, so the one below calls main from there when the command line asks for help: 0.03 s
// in place of 0.25. The Go program ends the process itself and never returns here.
//
// In such a process libtorch is not usable, so only what calls nothing of it may be listed in is_help.
#include <string.h>

int main(int argc, char** argv);

static int is_help(const char* arg) {
  return !strcmp(arg, "--help") || !strcmp(arg, "-h") || !strcmp(arg, "--version") || !strcmp(arg, "-v");
}

// The three forms are `gopeft`, `gopeft --help` and `gopeft COMMAND --help`. With more arguments --help could be the
// value of the flag before it, and Go has to decide.
static void early(int argc, char** argv, char** env) {
  (void)env;
  if (argc == 1 || (argc == 2 && is_help(argv[1])) || (argc == 3 && argv[1][0] != '-' && is_help(argv[2]))) {
    main(argc, argv);
  }
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(int, char**, char**) = early;
