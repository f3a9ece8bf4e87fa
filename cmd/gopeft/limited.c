// Under a limit of its address space (`ulimit -v`, which schedulers of clusters set too) a program runs out of memory
// in places that cannot give an error: Go's runtime, the start of a thread, C++ that throws where nothing catches. Each
// ends the process with pages of its own. There, and only there, the program runs in a child of the process that was
// started, which reads what it says: such an end becomes one line and exit code 1. All else passes through.
#include "limited.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t child;

static void pass_on(int sig) {
  if (child > 0) kill(child, sig);
}

// Signals go to the child but for those that are ignored, as under nohup. In the child they do again what they did.
static void pass_on_signals(int passing) {
  static const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
  for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
    struct sigaction now;
    if (sigaction(passed[i], NULL, &now) || now.sa_handler == SIG_IGN) continue;
    memset(&now, 0, sizeof now);
    now.sa_handler = passing ? pass_on : SIG_DFL;
    now.sa_flags = SA_RESTART;
    sigaction(passed[i], &now, NULL);
  }
}

static int any_of(const char* const* words, const char* text) {
  for (; *words; words++)
    if (strstr(text, *words)) return 1;
  return 0;
}

// How what is written in such an end begins, and what in it tells that it was for want of memory.
static const char* const kDumps[] = {
    "fatal error: ",    "Fatal glibc error: ", "runtime: ", "runtime/cgo: ", "SIGSEGV: ", "SIGABRT: ",
    "terminate called", "libgomp: ",           NULL};
static const char* const kMemory[] = {
    "out of memory",
    "cannot allocate memory",
    "pthread_create failed",
    "std::bad_alloc",
    "Thread creation failed",
    "failed to create new OS thread",
    "can't allocate memory",
    "runtime.(*spanQueue)",  // Go's garbage collector does not ask whether it was given memory for its queues
    NULL};

enum Beginning { kNoDump, kPerhaps, kDump };

static enum Beginning beginning(const char* line, size_t n) {
  enum Beginning so_far = kNoDump;
  for (const char* const* word = kDumps; *word; word++) {
    const size_t length = strlen(*word);
    if (strncmp(line, *word, n < length ? n : length)) continue;
    if (n >= length) return kDump;
    so_far = kPerhaps;
  }
  return so_far;
}

static void say(const char* text, size_t n) {
  while (n > 0) {
    const ssize_t done = write(STDERR_FILENO, text, n);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return;
    text += done;
    n -= (size_t)done;
  }
}

// Dump is the end of what the child has said, from where a dump began; only its first part is kept.
struct Dump {
  char text[1 << 16];
  size_t n;
  int begun;
};

// relay passes on what comes through the pipe, up to a dump: a line as it comes, once it cannot begin one.
static void relay(int from, struct Dump* dump) {
  char line[32], part[4096];  // longer than any beginning
  size_t known = 0;           // of the running line, what is held back
  size_t empty = 0;           // lines before it, held back too
  int passing = 0;            // the running line is no dump's
  for (;;) {
    const ssize_t got = read(from, part, sizeof part);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    for (ssize_t i = 0; i < got; i++) {
      if (dump->begun) {
        if (dump->n < sizeof dump->text - 1) dump->text[dump->n++] = part[i];
        continue;
      }
      if (passing) {
        ssize_t end = i;
        while (end < got && part[end] != '\n') end++;
        const int ended = end < got;
        say(part + i, (size_t)(end - i + ended));
        passing = !ended;
        i = end - !ended;
        continue;
      }
      line[known++] = part[i];
      switch (beginning(line, known)) {
        case kDump:
          dump->begun = 1;
          memcpy(dump->text, line, known);
          dump->n = known;
          break;
        case kNoDump:
          if (known == 1 && part[i] == '\n') {  // dumps have empty lines in front
            empty++;
            known = 0;
            break;
          }
          for (; empty > 0; empty--) say("\n", 1);
          say(line, known);
          passing = part[i] != '\n';
          known = 0;
          break;
        case kPerhaps: break;
      }
    }
  }
  for (; empty > 0 && !dump->begun; empty--) say("\n", 1);
  if (!dump->begun) say(line, known);
  dump->text[dump->n] = 0;
}

_Noreturn static void end_as(int status) {
  if (WIFSIGNALED(status)) {
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);  // the child's is the one to look at
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
  }
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

int watch_where_memory_is_limited(int debug) {
  static struct Dump dump;
  struct rlimit space;
  int ends[2];
  if (getrlimit(RLIMIT_AS, &space) || space.rlim_cur == RLIM_INFINITY) return 0;
  if (fcntl(STDERR_FILENO, F_GETFD) < 0 || pipe(ends)) return 0;
  const pid_t parent = getpid();
  pass_on_signals(1);
  child = fork();
  if (child <= 0) {
    pass_on_signals(0);
    close(ends[0]);
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      dup2(ends[1], STDERR_FILENO);
    }
    close(ends[1]);
    return child == 0;
  }
  close(ends[1]);
  relay(ends[0], &dump);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const int failed = WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
  if (dump.begun && failed && !debug && any_of(kMemory, dump.text)) {
    dprintf(STDERR_FILENO,
            "gopeft: no memory is left within the limit of %llu MB of address space (ulimit -v): raise it\n",
            (unsigned long long)space.rlim_cur >> 20);
    _exit(1);
  }
  say(dump.text, dump.n);
  end_as(status);
}
