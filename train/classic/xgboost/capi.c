#define _GNU_SOURCE
#include "capi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// find looks one function up; the first that is missing stays in *missing.
static void find(void* library, const char* name, void* function, const char** missing) {
  void* p = dlsym(library, name);
  if (!p && !*missing) *missing = name;
  memcpy(function, &p, sizeof p);
}

char* xgboost_open(const char* path, xgboost_api* api) {
  // DEEPBIND: libtorch's OpenMP is among the program's own libraries, and would else answer in place of its own.
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (!library) return strdup(dlerror());
  const char* missing = NULL;
  find(library, "XGBoostVersion", &api->version, &missing);
  find(library, "XGBGetLastError", &api->error, &missing);
  find(library, "XGBRegisterLogCallback", &api->log_callback, &missing);
  find(library, "XGDMatrixCreateFromDense", &api->matrix_create, &missing);
  find(library, "XGDMatrixSetInfoFromInterface", &api->matrix_set, &missing);
  find(library, "XGDMatrixFree", &api->matrix_free, &missing);
  find(library, "XGBoosterCreate", &api->create, &missing);
  find(library, "XGBoosterFree", &api->free, &missing);
  find(library, "XGBoosterSetParam", &api->set, &missing);
  find(library, "XGBoosterUpdateOneIter", &api->update, &missing);
  find(library, "XGBoosterEvalOneIter", &api->evaluate, &missing);
  find(library, "XGBoosterPredictFromDMatrix", &api->predict, &missing);
  find(library, "XGBoosterSaveModelToBuffer", &api->save, &missing);
  find(library, "XGBoosterLoadModelFromBuffer", &api->load, &missing);
  if (!missing) return NULL;
  char* message = NULL;
  if (asprintf(&message, "%s: there is no function %s in it: it is no libxgboost, or an old one", path, missing) < 0)
    return strdup("no memory");
  return message;
}

// What a thread was told beyond this is left out.
static _Thread_local char heard[4096];

static void keep(const char* message) {
  char* line = heard + strlen(heard);
  const int left = (int)(heard + sizeof heard - line);
  const int wrote = snprintf(line, left, "%s\n", message);
  for (char* end = line + (wrote < left ? wrote : left) - 1; line < end; line++)  // the last one ends the message
    if (*line == '\n') *line = ' ';
}

int xgboost_listen(const xgboost_api* x) {
  heard[0] = 0;
  return x->log_callback(keep);
}

const char* xgboost_heard(void) { return heard; }

void xgboost_version(const xgboost_api* x, int* major, int* minor, int* patch) { x->version(major, minor, patch); }

const char* xgboost_error(const xgboost_api* x) { return x->error(); }

int xgboost_matrix_create(const xgboost_api* x, const char* values, const char* config, handle* out) {
  return x->matrix_create(values, config, out);
}

int xgboost_matrix_set(const xgboost_api* x, handle matrix, const char* field, const char* values) {
  return x->matrix_set(matrix, field, values);
}

int xgboost_matrix_free(const xgboost_api* x, handle matrix) { return x->matrix_free(matrix); }

int xgboost_create(const xgboost_api* x, handle training, handle validation, handle* out) {
  const handle matrices[] = {training, validation};
  return x->create(matrices, !training ? 0 : !validation ? 1 : 2, out);
}

int xgboost_free(const xgboost_api* x, handle booster) { return x->free(booster); }

int xgboost_set(const xgboost_api* x, handle booster, const char* name, const char* value) {
  return x->set(booster, name, value);
}

int xgboost_update(const xgboost_api* x, handle booster, int round, handle matrix) {
  return x->update(booster, round, matrix);
}

int xgboost_evaluate(const xgboost_api* x, handle booster, int round, handle matrix, const char* name,
                     const char** out) {
  return x->evaluate(booster, round, &matrix, &name, 1, out);
}

int xgboost_predict(const xgboost_api* x, handle booster, handle matrix, const char* config, uint64_t* values,
                    const float** out) {
  const uint64_t* shape = NULL;
  uint64_t dims = 0;
  const int rc = x->predict(booster, matrix, config, &shape, &dims, out);
  if (rc != 0) return rc;
  *values = 1;
  for (uint64_t i = 0; i < dims; i++) *values *= shape[i];
  return 0;
}

int xgboost_save(const xgboost_api* x, handle booster, const char* config, uint64_t* bytes, const char** out) {
  return x->save(booster, config, bytes, out);
}

int xgboost_load(const xgboost_api* x, handle booster, const void* from, uint64_t bytes) {
  return x->load(booster, from, bytes);
}
