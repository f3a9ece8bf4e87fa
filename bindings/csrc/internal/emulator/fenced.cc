// Memory with a fence behind it: what a kernel reads there ends the test.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "emulator.h"

namespace {

constexpr unsigned char kMark = 0xa5;

struct Layout {
  size_t page, inside;  // bytes of the pages before the fence
  size_t before;        // where the memory begins in them
};

Layout layout(size_t bytes, size_t shift) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t inside = (bytes + 16 + page - 1) / page * page;
  return {page, inside, (inside - bytes - shift) / 16 * 16 + shift};
}

}  // namespace

void* fenced(size_t bytes, size_t shift) {
  const Layout l = layout(bytes, shift);
  void* all = mmap(nullptr, l.inside + l.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  unsigned char* p = static_cast<unsigned char*>(all);
  mprotect(p + l.inside, l.page, PROT_NONE);
  std::memset(p, kMark, l.inside);
  return p + l.before;
}

int fenced_free(void* memory, size_t bytes, size_t shift) {
  const Layout l = layout(bytes, shift);
  unsigned char* p = static_cast<unsigned char*>(memory) - l.before;
  bool kept = true;
  for (size_t i = 0; i < l.inside; i++)
    if (i < l.before || i >= l.before + bytes) kept = kept && p[i] == kMark;
  munmap(p, l.inside + l.page);
  return kept;
}
