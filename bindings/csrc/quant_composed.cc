// Quantised matrices' weights of libtorch's operations, for GPUs. On the CPU they are what tests hold our own code to.
#include <algorithm>
#include <vector>

#include "quant.h"

namespace gp {
namespace {

using at::Tensor;

constexpr int64_t kWeightsAtOnce = 1 << 24;

Tensor low(const Tensor& bytes) { return bytes.bitwise_and(15); }
Tensor high(const Tensor& bytes) { return at::bitwise_right_shift(bytes, 4); }
Tensor shifted(const Tensor& bytes, int n) { return n == 0 ? bytes : at::bitwise_right_shift(bytes, n); }

// bits is n bits of each byte from the i-th on, as integers that have room for more.
Tensor bits(const Tensor& bytes, int i, int n) { return shifted(bytes, i).bitwise_and((1 << n) - 1).to(at::kInt); }

// interleaved is a, b of each byte in turn, in a row.
Tensor interleaved(const Tensor& a, const Tensor& b) { return at::stack({a, b}, -1).flatten(-2); }

// in_blocks is v [n] as [blocks, size], padded with zeros.
Tensor in_blocks(const Tensor& v, int64_t size) {
  const int64_t rest = (size - v.numel() % size) % size;
  return (rest ? at::constant_pad_nd(v, {0, rest}) : v).view({-1, size});
}

Tensor halves(const Tensor& blocks, int64_t at) {
  return blocks.narrow(1, at, 2).contiguous().view(at::kHalf).to(at::kFloat);
}

Tensor of_table(const Quantised& q) {
  const Tensor table = at::from_blob(const_cast<float*>(kTables[q.kind]), {16}, at::kFloat).to(q.codes.device());
  const Tensor codes = interleaved(high(q.codes), low(q.codes)).narrow(0, 0, q.rows * q.cols);
  const Tensor values = in_blocks(table.index_select(0, codes.to(at::kInt)), q.block);
  return values.mul_(quant_scales(q).unsqueeze(1)).flatten().narrow(0, 0, q.rows * q.cols);
}

Tensor of_int4(const Quantised& q) {
  const Tensor codes = interleaved(low(q.codes), high(q.codes)).view({q.rows, -1, q.block});
  return codes.to(at::kFloat).sub_(q.zeros.unsqueeze(-1)).mul_(q.scales.unsqueeze(-1));
}

// Blocks of 32 as [blocks, 32], from [blocks, bytes].
Tensor of_blocks(QuantKind kind, const Tensor& p) {
  const Tensor d = halves(p, 0);
  if (kind == kQ8_0) return p.narrow(1, 2, 32).contiguous().view(at::kChar).to(at::kFloat).mul_(d);
  const bool minimum = kind == kQ4_1 || kind == kQ5_1, fifth = kind == kQ5_0 || kind == kQ5_1;
  const int64_t at = minimum ? 4 : 2;
  const Tensor codes = p.narrow(1, at + (fifth ? 4 : 0), 16);
  Tensor q = at::cat({bits(codes, 0, 4), bits(codes, 4, 4)}, 1);
  if (fifth) {
    std::vector<Tensor> places;
    for (int i = 0; i < 8; i++) places.push_back(bits(p.narrow(1, at, 4), i, 1));
    q = q + at::stack(places, -1).flatten(1) * 16;
  }
  if (minimum) return q.to(at::kFloat).mul_(d).add_(halves(p, 2));
  return (q - (fifth ? 16 : 8)).to(at::kFloat).mul_(d);
}

// Q4_K's and Q5_K's blocks as [blocks, 8, 32].
Tensor of_groups(QuantKind kind, const Tensor& p) {
  const Tensor a = p.narrow(1, 4, 4), b = p.narrow(1, 8, 4), c = p.narrow(1, 12, 4);
  const Tensor scales = at::cat({bits(a, 0, 6), bits(c, 0, 4) + bits(a, 6, 2) * 16}, 1).to(at::kFloat);
  const Tensor minima = at::cat({bits(b, 0, 6), bits(c, 4, 4) + bits(b, 6, 2) * 16}, 1).to(at::kFloat);
  const Tensor d = scales * halves(p, 0), m = minima * halves(p, 2);
  const Tensor codes = p.narrow(1, kind == kQ5_K ? 48 : 16, 128).reshape({-1, 4, 32});
  Tensor q = at::stack({bits(codes, 0, 4), bits(codes, 4, 4)}, 2).view({-1, 8, 32});
  if (kind == kQ5_K) {
    std::vector<Tensor> groups;
    for (int g = 0; g < 8; g++) groups.push_back(bits(p.narrow(1, 16, 32), g, 1));
    q = q + at::stack(groups, 1) * 16;
  }
  return q.to(at::kFloat).mul_(d.unsqueeze(-1)).sub_(m.unsqueeze(-1));
}

// Q6_K's blocks as [blocks, 16, 16].
Tensor of_q6(const Tensor& p) {
  const Tensor codes = p.narrow(1, 0, 128).reshape({-1, 2, 64}), pairs = p.narrow(1, 128, 64).reshape({-1, 2, 32});
  std::vector<Tensor> quarters;
  for (int i = 0; i < 4; i++) quarters.push_back(bits(pairs, 2 * i, 2));
  const Tensor q = at::cat({bits(codes, 0, 4), bits(codes, 4, 4)}, 2) + at::cat(quarters, 2) * 16 - 32;
  const Tensor d = p.narrow(1, 192, 16).contiguous().view(at::kChar).to(at::kFloat) * halves(p, 208);
  return q.view({-1, 16, 16}).to(at::kFloat).mul_(d.unsqueeze(-1));
}

// whole is all of a matrix in fp32.
Tensor whole(const Quantised& q) {
  if (has_table(q.kind)) return of_table(q);
  if (q.kind == kInt8Rows) return q.codes.to(at::kFloat).mul_(q.scales.unsqueeze(1)).mul_(kInt8Unit);
  if (q.kind == kInt4) return of_int4(q);
  const Tensor p = q.codes.view({-1, block_bytes(q.kind)});
  if (q.kind == kQ6_K) return of_q6(p);
  return q.kind == kQ4_K || q.kind == kQ5_K ? of_groups(q.kind, p) : of_blocks(q.kind, p);
}

// shaped is q with its parts in the shapes that are written here; callers may have them in others.
Quantised shaped(Quantised q) {
  const auto flat = [](Tensor& t) {
    if (t.defined()) t = t.flatten();
  };
  if (has_table(q.kind)) flat(q.codes);
  else q.codes = q.codes.view({q.rows, -1});
  if (q.kind == kInt4) {
    q.scales = q.scales.view({q.rows, -1});
    q.zeros = q.zeros.view({q.rows, -1});
  } else {
    flat(q.scales);
  }
  return q;
}

// Whether every row has scales of its own, so that rows are a matrix too.
bool rows_apart(const Quantised& q) { return !has_table(q.kind) || (q.cols % q.block == 0 && q.cols % 2 == 0); }

// picked is the matrix of some of q's rows: take chooses them from a tensor with as many.
template <class F>
Quantised picked(const Quantised& q, int64_t rows, const F& take) {
  Quantised some = q;
  some.rows = rows;
  some.codes = take(q.codes.view({q.rows, -1}));
  if (has_table(q.kind)) some.codes = some.codes.flatten();
  if (q.nested_block) {
    some.scales = take(quant_scales(q).view({q.rows, -1})).flatten();
    some.nested_block = 0;
  } else if (q.scales.defined()) {
    some.scales = take(q.scales.view({q.rows, -1}));
    if (has_table(q.kind) || q.kind == kInt8Rows) some.scales = some.scales.flatten();
  }
  if (q.zeros.defined()) some.zeros = take(q.zeros);
  return some;
}

}  // namespace

Tensor quant_scales(const Quantised& q) {
  if (!q.nested_block) return q.scales.flatten();
  const Tensor map = q.nested_map.flatten().index_select(0, q.scales.flatten().to(at::kInt));
  return in_blocks(map, q.nested_block)
      .mul(q.nested_scales.reshape({-1, 1}))
      .add(q.offset)
      .flatten()
      .narrow(0, 0, q.scales.numel());
}

Tensor dequantise_composed(const Quantised& given, at::ScalarType d) {
  const Quantised q = shaped(given);
  const int64_t step = std::max<int64_t>(1, kWeightsAtOnce / std::max<int64_t>(1, q.cols));
  if (q.rows <= step || !rows_apart(q)) return whole(q).view({q.rows, q.cols}).to(d);
  Quantised flat = q;
  if (q.nested_block) {
    flat.scales = quant_scales(q);
    flat.nested_block = 0;
  }
  Tensor out = at::empty({q.rows, q.cols}, q.codes.options().dtype(d));
  for (int64_t r = 0; r < q.rows; r += step) {
    const int64_t n = std::min(step, q.rows - r);
    const Quantised part = picked(flat, n, [&](const Tensor& t) { return t.narrow(0, r, n); });
    out.narrow(0, r, n).copy_(whole(part).view({n, q.cols}));
  }
  return out;
}

Tensor quant_rows_composed(const Quantised& given, const Tensor& ids, at::ScalarType d) {
  const Quantised q = shaped(given);
  auto shape = ids.sizes().vec();
  shape.push_back(q.cols);
  const Tensor flat = ids.flatten();
  if (!rows_apart(q)) return dequantise_composed(q, d).index_select(0, flat).view(shape);
  const Quantised some = picked(q, flat.numel(), [&](const Tensor& t) { return t.index_select(0, flat); });
  return whole(some).view({flat.numel(), q.cols}).to(d).view(shape);
}

}  // namespace gp
