// The functions of XGBoost's C API that are used, found by dlopen: they are declared here, so that its headers are not
// needed. Each returns 0, or -1 with its reason in what error gives on the same thread.
#pragma once

#include <stdint.h>

typedef void* handle;

typedef struct {
  void (*version)(int* major, int* minor, int* patch);
  const char* (*error)(void);
  int (*log_callback)(void (*keep)(const char* message));
  int (*matrix_create)(const char* values, const char* config, handle* out);
  int (*matrix_set)(handle matrix, const char* field, const char* values);
  int (*matrix_free)(handle matrix);
  int (*create)(const handle* matrices, uint64_t n, handle* out);
  int (*free)(handle booster);
  int (*set)(handle booster, const char* name, const char* value);
  int (*update)(handle booster, int round, handle matrix);
  int (*evaluate)(handle booster, int round, handle* matrices, const char** names, uint64_t n, const char** out);
  int (*predict)(handle booster, handle matrix, const char* config, const uint64_t** shape, uint64_t* dims,
                 const float** out);
  int (*save)(handle booster, const char* config, uint64_t* bytes, const char** out);
  int (*load)(handle booster, const void* from, uint64_t bytes);
} xgboost_api;

// Fills in api from the library at path; a message if it cannot, for the caller to free.
char* xgboost_open(const char* path, xgboost_api* api);

// Has the calling thread's messages kept instead of printed, from none on.
int xgboost_listen(const xgboost_api* api);
// What the calling thread has kept, lines one after the other. It lasts until the next call into the library.
const char* xgboost_heard(void);

void xgboost_version(const xgboost_api* api, int* major, int* minor, int* patch);
const char* xgboost_error(const xgboost_api* api);
int xgboost_matrix_create(const xgboost_api* api, const char* values, const char* config, handle* out);
int xgboost_matrix_set(const xgboost_api* api, handle matrix, const char* field, const char* values);
int xgboost_matrix_free(const xgboost_api* api, handle matrix);
// The matrices, which may be none, are those that it will be trained and evaluated on.
int xgboost_create(const xgboost_api* api, handle training, handle validation, handle* out);
int xgboost_free(const xgboost_api* api, handle booster);
int xgboost_set(const xgboost_api* api, handle booster, const char* name, const char* value);
int xgboost_update(const xgboost_api* api, handle booster, int round, handle matrix);
int xgboost_evaluate(const xgboost_api* api, handle booster, int round, handle matrix, const char* name,
                     const char** out);
int xgboost_predict(const xgboost_api* api, handle booster, handle matrix, const char* config, uint64_t* values,
                    const float** out);
int xgboost_save(const xgboost_api* api, handle booster, const char* config, uint64_t* bytes, const char** out);
int xgboost_load(const xgboost_api* api, handle booster, const void* from, uint64_t bytes);
