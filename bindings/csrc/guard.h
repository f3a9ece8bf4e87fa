// GUARD(body) runs body and returns NULL, or the message of the exception it threw (the caller frees it).
#pragma once
#include <cstring>
#include <exception>

#define GUARD(...)                      \
  try {                                 \
    __VA_ARGS__                         \
    return nullptr;                     \
  } catch (const std::exception& e) {   \
    return strdup(e.what());            \
  } catch (...) {                       \
    return strdup("unknown exception"); \
  }
