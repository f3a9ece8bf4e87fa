// A file that is mapped into memory and shortened by another program can no longer be read where it was: the system
// sends SIGBUS to the thread that tries. In Go code that becomes an error (package bindings/fault). In libtorch's code,
// on whatever thread, nothing can go on; then the handler below ends the program with a line that names the file.
//
// It is installed before Go's runtime starts, which keeps it and passes on the signals that come from outside Go code.
// Only what is safe in a signal handler is called.
#include "fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { kLine = 512, kShown = 300 };

// A line of /proc/self/maps is "FROM-TO PERMISSIONS OFFSET DEVICE INODE   PATH".
static const char* path_if_at(const char* line, uintptr_t address) {
  uintptr_t bound[2] = {0, 0};
  for (int i = 0; i < 2; i++) {
    for (; (*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f'); line++)
      bound[i] = bound[i] << 4 | (uintptr_t)(*line <= '9' ? *line - '0' : *line - 'a' + 10);
    if (*line) line++;
  }
  if (address < bound[0] || address >= bound[1]) return NULL;
  return strchr(line, '/');
}

// mapped_at finds which file is mapped at an address, and puts its path, or the beginning of it, into path.
static int mapped_at(uintptr_t address, char path[kLine]) {
  const int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (maps < 0) return 0;
  char read_ahead[4096], line[kLine];
  size_t length = 0;
  int found = 0;
  for (ssize_t n; !found && (n = read(maps, read_ahead, sizeof read_ahead)) > 0;) {
    for (ssize_t i = 0; i < n && !found; i++) {
      if (read_ahead[i] != '\n') {
        if (length < sizeof line - 1) line[length++] = read_ahead[i];
        continue;
      }
      line[length] = 0;
      length = 0;
      const char* at = path_if_at(line, address);
      if (at) {
        memcpy(path, at, strlen(at) + 1);
        found = 1;
      }
    }
  }
  close(maps);
  return found;
}

static void on_bus_error(int sig, siginfo_t* info, void* context) {
  (void)context;
  static const char hex[] = "0123456789abcdef", begin[] = "gopeft: ";
  static const char end[] = ": the mapped file cannot be read any more: it was shortened, or its disk failed\n";
  char path[kLine], text[sizeof begin + 4 * kShown + sizeof end];
  if (info->si_code <= 0 || !mapped_at((uintptr_t)info->si_addr, path)) {  // sent by someone, or no file's
    signal(sig, SIG_DFL);
    raise(sig);
    return;
  }
  size_t n = sizeof begin - 1;
  memcpy(text, begin, n);
  for (size_t i = 0; path[i] && i < kShown; i++) {
    const unsigned char c = (unsigned char)path[i];
    if (c < 0x20 || c == 0x7f) {  // would steer a terminal
      text[n++] = '\\';
      text[n++] = 'x';
      text[n++] = hex[c >> 4];
      text[n++] = hex[c & 15];
    } else {
      text[n++] = path[i];
    }
  }
  memcpy(text + n, end, sizeof end - 1);
  n += sizeof end - 1;
  const ssize_t written = write(STDERR_FILENO, text, n);
  (void)written;
  _exit(1);
}

void catch_bus_errors(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGBUS, &action, NULL);
}
