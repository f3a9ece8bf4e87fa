// The structs that kernels take as arguments: read by the host's compiler and by NVRTC, which has no headers.
#pragma once

// Format is how a quantised matrix lies in its codes; see Quantised in package bindings.
enum Format { kNF4, kFP4, kInt8Rows, kQ4_0, kQ4_K };

// QuantMatrix is a quantised matrix of rows x cols weights. NF4 and FP4 have a scale for 2^shift weights in a row of
// the flattened matrix: plain, or where that is null map[nested]·outer + offset, with one outer for 2^outer_shift
// scales. Rows of int8 have one plain scale each. Q4_0 and Q4_K hold their scales among the codes.
struct QuantMatrix {
  const unsigned char* codes;
  const float* plain;
  const unsigned char* nested;
  const float* map;
  const float* outer;
  float offset;
  int shift, outer_shift;
  long long rows, cols;
};

// Heads is a tensor [B, S, heads, 2·half] by the distances in elements from one B, S and head to the next, and the one
// of the same shape that it is rotated into.
struct Heads {
  const void* from;
  void* to;
  long long from_batch, from_position, from_head;
  long long to_batch, to_position, to_head;
  int heads;
};

// Angles are cos and sin [B or 1, S, 2·half], whose last dimension is contiguous; batch is 0 where all B share them.
struct Angles {
  const void* cos;
  const void* sin;
  long long cos_batch, cos_position, sin_batch, sin_position;
};
