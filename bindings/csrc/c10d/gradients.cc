// Gradients summed over the ranks while the backward pass still runs. They lie in flat buckets, as views, into which
// autograd adds; a bucket leaves when its last gradient has come.
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>

#include "../boundary.h"
#include "buckets.h"
#include "c10d.h"
#include "group.h"

using at::Tensor;
using gp::guarded;
using gp::T;

std::vector<gp::Bucket> gp::buckets_of(const std::vector<Tensor>& params, int64_t cap) {
  std::vector<Bucket> buckets;
  for (size_t i = params.size(); i-- > 0;) {
    const Tensor& p = params[i];
    const int64_t bytes = static_cast<int64_t>(p.nbytes());
    const bool fits = !buckets.empty() && buckets.back().options.dtype() == p.dtype() &&
                      buckets.back().options.device() == p.device() &&
                      (cap == 0 || buckets.back().bytes + bytes <= cap);
    if (!fits) {
      buckets.emplace_back();
      buckets.back().options = at::TensorOptions().dtype(p.dtype()).device(p.device());
    }
    Bucket& b = buckets.back();
    b.members.push_back(i);
    b.bytes += bytes;
    b.elements += p.numel() + 1;
  }
  return buckets;
}

namespace {

class Gradients {
 public:
  Gradients(gp::Group* group, std::vector<Tensor> params, int64_t cap);
  ~Gradients();

  void begin();
  void last();
  void end();
  bool wait(int64_t ms);

 private:
  struct Bucket : gp::Bucket {
    size_t missing = 0;
    c10::intrusive_ptr<c10d::Work> work;
  };
  struct Place {
    size_t bucket;
    Tensor view;
    bool came = false;
  };
  struct Hook : torch::autograd::PostAccumulateGradHook {
    Hook(Gradients* all, size_t i) : all(all), i(i) {}
    void operator()(const torch::autograd::Variable&) override { all->came(i); }
    Gradients* all;
    size_t i;
  };

  void came(size_t i);
  void send(Bucket& b);

  gp::Group* group_;
  std::vector<Tensor> params_;
  std::vector<Place> places_;
  std::vector<Bucket> buckets_;
  size_t sent_ = 0;  // buckets that have left: on every rank in this order
  bool last_ = false;
};

Gradients::Gradients(gp::Group* group, std::vector<Tensor> params, int64_t cap)
    : group_(group), params_(std::move(params)), places_(params_.size()) {
  for (gp::Bucket& b : gp::buckets_of(params_, cap)) {
    for (size_t i : b.members) places_[i].bucket = buckets_.size();
    buckets_.emplace_back();
    static_cast<gp::Bucket&>(buckets_.back()) = std::move(b);
  }
  for (Bucket& b : buckets_) {
    b.flat = at::zeros({b.elements}, b.options);
    int64_t at = 0;
    for (size_t i : b.members) {
      places_[i].view = b.flat.narrow(0, at, params_[i].numel()).view(params_[i].sizes());
      at += params_[i].numel();
    }
  }
  for (size_t i = 0; i < params_.size(); i++)
    torch::autograd::impl::set_post_acc_grad_hooks(params_[i], std::make_unique<Hook>(this, i));
}

Gradients::~Gradients() {
  for (Tensor& p : params_) {
    torch::autograd::impl::set_post_acc_grad_hooks(p, nullptr);
    p.mutable_grad() = Tensor();  // it would keep its whole bucket
  }
}

void Gradients::begin() {
  c10::NoGradGuard guard;
  for (Bucket& b : buckets_) {
    b.flat.zero_();
    b.missing = b.members.size();
    b.work.reset();
  }
  for (size_t i = 0; i < params_.size(); i++) {
    params_[i].mutable_grad() = places_[i].view;
    places_[i].came = false;
  }
  sent_ = 0;
  last_ = false;
}

// A bucket may leave when each gradient of it has come in the last pass: whatever came before is in it then.
void Gradients::last() {
  last_ = true;
  for (Bucket& b : buckets_) b.missing = b.members.size();
}

void Gradients::came(size_t i) {
  Place& place = places_[i];
  Bucket& b = buckets_[place.bucket];
  place.came = true;
  if (!last_) return;
  b.missing--;
  while (sent_ < buckets_.size() && buckets_[sent_].missing == 0) send(buckets_[sent_++]);
}

void Gradients::send(Bucket& b) {
  c10::NoGradGuard guard;
  std::vector<float> came;
  for (size_t i : b.members) came.push_back(places_[i].came ? 1.0F : 0.0F);
  b.counts().copy_(at::tensor(came));
  std::vector<Tensor> flat{b.flat};
  b.work = group_->of(b.flat).allreduce(flat);
}

void Gradients::end() {
  while (sent_ < buckets_.size()) send(buckets_[sent_++]);
}

bool Gradients::wait(int64_t ms) {
  for (Bucket& b : buckets_) {
    if (!b.work) continue;
    if (!gp::waited(*b.work, b.flat, ms)) return false;
    b.work.reset();
  }
  for (Bucket& b : buckets_) {
    const Tensor ranks = b.counts().to(at::kCPU, at::kFloat);
    for (size_t k = 0; k < b.members.size(); k++)
      if (ranks.data_ptr<float>()[k] == 0) params_[b.members[k]].mutable_grad() = Tensor();
  }
  return true;
}

Gradients& all(gp_gradients g) { return *static_cast<Gradients*>(g); }

}  // namespace

char* gp_gradients_new(gp_gradients* out, gp_group group, gp_tensor* params, int n, int64_t cap) {
  return guarded([&] {
    std::vector<Tensor> ps;
    for (int i = 0; i < n; i++) ps.push_back(T(params[i]));
    *out = new Gradients(static_cast<gp::Group*>(group), std::move(ps), cap);
  });
}

void gp_gradients_free(gp_gradients g) { delete static_cast<Gradients*>(g); }

char* gp_gradients_begin(gp_gradients g) {
  return guarded([&] { all(g).begin(); });
}

char* gp_gradients_last(gp_gradients g) {
  return guarded([&] { all(g).last(); });
}

char* gp_gradients_end(gp_gradients g) {
  return guarded([&] { all(g).end(); });
}

char* gp_gradients_wait(gp_gradients g, int64_t ms, int* done) {
  return guarded([&] { *done = all(g).wait(ms); });
}
