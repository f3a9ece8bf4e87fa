// Gradients that are summed over the ranks while the backward pass still runs, and of which each rank keeps its part. A
// bucket has memory from its first gradient on until its sum is there, so that two are whole at a time. Buckets are
// those of gradients that every rank keeps whole: the sums are the same to the bit.
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

namespace {

class Parts {
 public:
  Parts(gp::Group* group, std::vector<Tensor> params, std::vector<Tensor> own, std::vector<int64_t> from, int64_t cap);
  ~Parts();

  void begin();
  bool pass(int64_t ms);
  size_t size() const { return places_.size(); }
  bool came(size_t i) const { return places_[i].ranks > 0; }

 private:
  struct Bucket : gp::Bucket {
    size_t missing = 0;
    c10::intrusive_ptr<c10d::Work> work;
  };
  struct Place {
    size_t bucket = 0;
    int64_t at = 0;    // in the bucket
    int64_t from = 0;  // where the own part begins in the parameter
    Tensor own;
    bool came = false;  // in this pass, here
    float ranks = 0;    // on how many, in all passes of the step
  };
  struct Hook : torch::autograd::PostAccumulateGradHook {
    Hook(Parts* all, size_t i) : all(all), i(i) {}
    void operator()(const torch::autograd::Variable&) override { all->arrived(i); }
    Parts* all;
    size_t i;
  };

  void arrived(size_t i);
  void send(Bucket& b);
  void keep(Bucket& b);
  void reset();

  gp::Group* group_;
  std::vector<Tensor> params_;
  std::vector<Place> places_;
  std::vector<Bucket> buckets_;
  size_t sent_ = 0;  // buckets that have left: on every rank in this order
  size_t kept_ = 0;  // of these, those whose sum has come
};

Parts::Parts(gp::Group* group, std::vector<Tensor> params, std::vector<Tensor> own, std::vector<int64_t> from,
             int64_t cap)
    : group_(group), params_(std::move(params)), places_(params_.size()) {
  for (gp::Bucket& b : gp::buckets_of(params_, cap)) {
    int64_t at = 0;
    for (size_t i : b.members) {
      places_[i].bucket = buckets_.size();
      places_[i].at = at;
      at += params_[i].numel();
    }
    buckets_.emplace_back();
    static_cast<gp::Bucket&>(buckets_.back()) = std::move(b);
  }
  for (size_t i = 0; i < params_.size(); i++) {
    places_[i].own = std::move(own[i]);
    places_[i].from = from[i];
    torch::autograd::impl::set_post_acc_grad_hooks(params_[i], std::make_unique<Hook>(this, i));
  }
  reset();
}

Parts::~Parts() {
  for (Tensor& p : params_) {
    torch::autograd::impl::set_post_acc_grad_hooks(p, nullptr);
    p.mutable_grad() = Tensor();
  }
}

void Parts::begin() {
  c10::NoGradGuard guard;
  for (size_t i = 0; i < params_.size(); i++) {
    params_[i].mutable_grad() = Tensor();
    places_[i].own.zero_();
    places_[i].ranks = 0;
  }
}

void Parts::reset() {
  for (Bucket& b : buckets_) b.missing = b.members.size();
  for (Place& p : places_) p.came = false;
  sent_ = kept_ = 0;
}

void Parts::arrived(size_t i) {
  c10::NoGradGuard guard;
  Place& place = places_[i];
  Bucket& b = buckets_[place.bucket];
  if (!b.flat.defined()) b.flat = at::zeros({b.elements}, b.options);
  Tensor& gradient = params_[i].mutable_grad();
  b.flat.narrow(0, place.at, params_[i].numel()).view(params_[i].sizes()).add_(gradient);
  gradient = Tensor();
  place.came = true;
  b.missing--;
  while (sent_ < buckets_.size() && buckets_[sent_].missing == 0) {
    if (kept_ < sent_) {
      gp::wait_unless_given_up(*group_, *buckets_[kept_].work, buckets_[kept_].flat);
      keep(buckets_[kept_++]);
    }
    send(buckets_[sent_++]);
  }
}

void Parts::send(Bucket& b) {
  if (!b.flat.defined()) b.flat = at::zeros({b.elements}, b.options);
  std::vector<float> came;
  for (size_t i : b.members) came.push_back(places_[i].came ? 1.0F : 0.0F);
  b.counts().copy_(at::tensor(came));
  std::vector<Tensor> flat{b.flat};
  b.work = group_->of(b.flat).allreduce(flat);
}

// Adds this rank's part of a sum to what it has, and lets go of the rest.
void Parts::keep(Bucket& b) {
  const Tensor ranks = b.counts().to(at::kCPU, at::kFloat);
  for (size_t k = 0; k < b.members.size(); k++) {
    Place& p = places_[b.members[k]];
    p.ranks += ranks.data_ptr<float>()[k];
    if (p.own.numel() > 0) p.own.add_(b.flat.narrow(0, p.at + p.from, p.own.numel()));
  }
  b.work.reset();
  b.flat = Tensor();
}

bool Parts::pass(int64_t ms) {
  c10::NoGradGuard guard;
  while (kept_ < buckets_.size()) {
    if (kept_ < sent_) {
      if (!gp::waited(*buckets_[kept_].work, buckets_[kept_].flat, ms)) return false;
      keep(buckets_[kept_++]);
      continue;
    }
    send(buckets_[sent_++]);
  }
  reset();
  return true;
}

Parts& P(gp_parts parts) { return *static_cast<Parts*>(parts); }

}  // namespace

char* gp_parts_new(gp_parts* out, gp_group group, gp_tensor* params, gp_tensor* own, const int64_t* from, int n,
                   int64_t cap) {
  return guarded([&] {
    std::vector<Tensor> ps, os;
    for (int i = 0; i < n; i++) {
      ps.push_back(T(params[i]));
      os.push_back(T(own[i]));
    }
    *out = new Parts(static_cast<gp::Group*>(group), std::move(ps), std::move(os), {from, from + n}, cap);
  });
}

void gp_parts_free(gp_parts parts) { delete &P(parts); }

char* gp_parts_begin(gp_parts parts) {
  return guarded([&] { P(parts).begin(); });
}

char* gp_parts_pass(gp_parts parts, int64_t ms, int* done) {
  return guarded([&] { *done = P(parts).pass(ms); });
}

void gp_parts_came(gp_parts parts, int* came) {
  for (size_t i = 0; came && i < P(parts).size(); i++) came[i] = P(parts).came(i);
}
