// Tensors: facts about them, making them, and the operations on them that gotch lacks.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "handles.h"
#include "libtorch.h"

using at::Tensor;
using gp::give;
using gp::guarded;
using gp::T;

namespace {

at::IntArrayRef dims(const int64_t* p, int n) { return at::IntArrayRef(p, static_cast<size_t>(n)); }

at::TensorOptions options(int dtype, int device) {
  return at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype)).device(gp::device_of(device));
}

// in_place runs fn without recording for autograd.
template <class F>
char* in_place(const F& fn) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    fn();
  });
}

// compare is a op b for b a tensor or a number; the operations are numbered as in shim.h.
template <class B>
Tensor compare(const Tensor& a, int op, const B& b) {
  switch (op) {
    case 0: return at::lt(a, b);
    case 1: return at::le(a, b);
    case 2: return at::eq(a, b);
    case 3: return at::ne(a, b);
    case 4: return at::ge(a, b);
    default: return at::gt(a, b);
  }
}

}  // namespace

int64_t gp_dim(gp_tensor t) { return T(t).dim(); }

int64_t gp_size(gp_tensor t, int64_t dim) {
  int64_t n = T(t).dim();
  if (dim < 0) dim += n;
  return dim < 0 || dim >= n ? -1 : T(t).sizes()[static_cast<size_t>(dim)];
}

int64_t gp_numel(gp_tensor t) { return T(t).numel(); }
int gp_dtype(gp_tensor t) { return static_cast<int>(T(t).scalar_type()); }
int gp_device(gp_tensor t) { return T(t).is_cuda() ? T(t).get_device() : T(t).is_meta() ? GP_NOWHERE : -1; }
gp_bool gp_is_contiguous(gp_tensor t) { return T(t).is_contiguous(); }
gp_bool gp_requires_grad(gp_tensor t) { return T(t).requires_grad(); }
void* gp_data(gp_tensor t) { return T(t).data_ptr(); }
int64_t gp_item_size(gp_tensor t) { return static_cast<int64_t>(T(t).element_size()); }

char* gp_from_blob(gp_tensor* out, void* data, const int64_t* sizes, int n, int dtype) {
  return give(out, [&] { return at::from_blob(data, dims(sizes, n), options(dtype, -1)); });
}

char* gp_empty(gp_tensor* out, const int64_t* sizes, int n, int dtype, int device, gp_bool pinned) {
  return give(out, [&] { return at::empty(dims(sizes, n), options(dtype, device).pinned_memory(pinned != 0)); });
}

char* gp_full(gp_tensor* out, const int64_t* sizes, int n, double value, int dtype, int device) {
  return give(out, [&] { return at::full(dims(sizes, n), value, options(dtype, device)); });
}

char* gp_arange(gp_tensor* out, int64_t start, int64_t end, int dtype, int device) {
  return give(out, [&] { return at::arange(start, end, options(dtype, device)); });
}

char* gp_uniform_(gp_tensor t, double lo, double hi) {
  return in_place([&] { T(t).uniform_(lo, hi); });
}

char* gp_normal_(gp_tensor t, double mean, double std) {
  return in_place([&] { T(t).normal_(mean, std); });
}

char* gp_to(gp_tensor* out, gp_tensor t, int dtype, int device, gp_bool non_blocking) {
  return give(out,
              [&] { return T(t).to(gp::device_of(device), static_cast<at::ScalarType>(dtype), non_blocking != 0); });
}

char* gp_copy_(gp_tensor dst, gp_tensor src, gp_bool non_blocking) {
  return in_place([&] { T(dst).copy_(T(src), non_blocking != 0); });
}

char* gp_read(gp_tensor t, void* dst, int dtype) {
  return in_place([&] {
    const Tensor src = T(t).detach();
    Tensor view = at::from_blob(dst, src.sizes(), options(dtype, -1));
    view.copy_(src);
  });
}

char* gp_add_scalar(gp_tensor* out, gp_tensor a, double v) {
  return give(out, [&] { return at::add(T(a), v); });
}

char* gp_mul_scalar(gp_tensor* out, gp_tensor a, double v) {
  return give(out, [&] { return at::mul(T(a), v); });
}

char* gp_masked_fill(gp_tensor* out, gp_tensor a, gp_tensor mask, double v) {
  return give(out, [&] { return at::masked_fill(T(a), T(mask), v); });
}

char* gp_compare_scalar(gp_tensor* out, gp_tensor a, int op, double v) {
  return give(out, [&] { return compare(T(a), op, v); });
}

char* gp_compare(gp_tensor* out, gp_tensor a, int op, gp_tensor b) {
  return give(out, [&] { return compare(T(a), op, T(b)); });
}

char* gp_slice(gp_tensor* out, gp_tensor a, int64_t dim, int64_t start, int64_t end, int64_t step) {
  return give(out, [&] { return at::slice(T(a), dim, start, end, step); });
}

char* gp_clone(gp_tensor* out, gp_tensor a) {
  return give(out, [&] { return T(a).clone(); });
}

char* gp_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor mask, double dropout,
                   gp_bool causal, double scale, gp_bool gqa) {
  return give(out, [&] {
    return gp::attention(T(q), T(k), T(v), gp::maybe(gp::opt(mask)), dropout, causal != 0, scale, gqa != 0);
  });
}

char* gp_packed_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor ends, int64_t longest,
                          double dropout, double scale) {
  return give(out, [&] {
    // [B, H, S, D] becomes [B·S, H, D], without a copy where heads were split from a projection.
    const auto tokens = [](const at::Tensor& t) { return t.transpose(1, 2).flatten(0, 1); };
    const at::Tensor &tq = T(q), &of = T(ends);
    const auto all = at::_flash_attention_forward(tokens(tq), tokens(T(k)), tokens(T(v)), of, of, longest, longest,
                                                  dropout, true, false, scale);
    return std::get<0>(all).unflatten(0, {tq.size(0), tq.size(2)}).transpose(1, 2);
  });
}

char* gp_add_(gp_tensor dst, gp_tensor src, double alpha) {
  return in_place([&] { T(dst).add_(T(src), alpha); });
}

char* gp_mul_scalar_(gp_tensor t, double v) {
  return in_place([&] { T(t).mul_(v); });
}

char* gp_fill_(gp_tensor t, double v) {
  return in_place([&] { T(t).fill_(v); });
}
