// What has to happen before the libraries start: `gopeft --help` is answered, OpenMP is told not to spin for long, and
// what Go's runtime takes over is looked at.
//
// Before main runs, the dynamic loader runs the initialisers of every library, and those of libtorch take 0.2 s to
// register its operators. Help and the version need none of them. The loader runs a program's preinit functions
// earlier than all initialisers, so the one below calls main from there when the command line asks for help: 0.03 s
// in place of 0.25. The Go program ends the process itself and never returns here.
//
// In such a process libtorch is not usable, so only what calls nothing of it may be listed in is_help.
//
// Threads of GNU's OpenMP, which libtorch computes with, spin for milliseconds before they sleep. Where two programs
// share the cores, each then waits for the other's spinning, and takes 7 times as long as alone, or 20. The library
// reads GOMP_SPINCOUNT when it is initialised, from the environment that the process began with; so the program begins
// again with it, before anything is initialised. What the user has set holds.
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"
#include "limited.h"

int main(int argc, char** argv);

static int is_help(const char* arg) {
  return !strcmp(arg, "--help") || !strcmp(arg, "-h") || !strcmp(arg, "--version") || !strcmp(arg, "-v");
}

static char spin_count[] = "GOMP_SPINCOUNT=1000";

static int is_set(char** env, const char* name) {
  for (size_t n = strlen(name); *env; env++)
    if (!strncmp(*env, name, n) && (*env)[n] == '=') return 1;
  return 0;
}

int stdout_closed;  // before anything else was opened in its place

static char watched_variable[] = "GOPEFT_WATCHED=1";

// Where the program cannot begin again it goes on as it is: slower beside others, and right.
static void begin_again(char** argv, char** env, int watched) {
  const int calmed = is_set(env, "GOMP_SPINCOUNT") || is_set(env, "OMP_WAIT_POLICY");
  if (calmed && !watched) return;
  size_t n = 0;
  while (env[n]) n++;
  char** more = malloc((n + 3) * sizeof *more);
  if (!more) return;
  memcpy(more, env, n * sizeof *more);
  if (!calmed) more[n++] = spin_count;
  if (watched) more[n++] = watched_variable;  // and so are the processes that it starts
  more[n] = NULL;
  char path[PATH_MAX];  // by the link itself the process would be listed as "exe"
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length > 0) {
    path[length] = 0;
    execve(path, argv, more);
  }
  execve("/proc/self/exe", argv, more);  // where the file has been replaced since
  free(more);
}

// The three forms are `gopeft`, `gopeft --help` and `gopeft COMMAND --help`. With more arguments --help could be the
// value of the flag before it, and Go has to decide.
static void early(int argc, char** argv, char** env) {
  stdout_closed = fcntl(STDOUT_FILENO, F_GETFD) < 0;
  if (argc == 1 || (argc == 2 && is_help(argv[1])) || (argc == 3 && argv[1][0] != '-' && is_help(argv[2]))) {
    main(argc, argv);
  }
  int debug = 0;
  for (int i = 1; i < argc; i++) debug |= !strcmp(argv[i], "--debug");
  begin_again(argv, env, !is_set(env, "GOPEFT_WATCHED") && watch_where_memory_is_limited(debug));
  catch_bus_errors();
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(int, char**, char**) = early;
