// A program's preinit functions run when its libraries are mapped and relocated, and before any of their
// initialisers. For help and usage, this one enters the Go program (whose C entry point is main) right there; Go ends
// the process itself, so it never comes back. Nothing of libtorch may be called in a process that began so.
#include <string.h>

int main(int argc, char** argv);

static int is_help(const char* arg) {
  return !strcmp(arg, "--help") || !strcmp(arg, "-h") || !strcmp(arg, "--version") || !strcmp(arg, "-v");
}

// Only where the argument cannot be the value of a flag before it: gopeft, gopeft --help, gopeft COMMAND --help.
static void early(int argc, char** argv, char** env) {
  (void)env;
  if (argc == 1 || (argc == 2 && is_help(argv[1])) || (argc == 3 && argv[1][0] != '-' && is_help(argv[2]))) {
    main(argc, argv);
  }
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(int, char**, char**) = early;
