// All vector code of one path, and its table.
#pragma once
#include "vec_attention_backward.h"
#include "vec_attention_decode.h"
#include "vec_attention_forward.h"
#include "vec_elementwise.h"
#include "vec_layer_norm.h"
#include "vec_linear.h"
#include "vec_quant_pack.h"
#include "vec_rms_norm.h"
#include "vec_rotary.h"

namespace gp::GP_PATH {

const Kernels kTable = {
    .tile = tile_kernel,
    .pack = pack_kernel,
#ifdef GP_BF16
    .dots = {{dot<1>, dot<2>, dot<3>, dot<4>}, {dot_bf16<1>, dot_bf16<2>, dot_bf16<3>, dot_bf16<4>}},
#else
    .dots = {{dot<1>, dot<2>, dot<3>, dot<4>}, {}},
#endif
    .add_rows = add_rows,
    .packer_of_rows = packer_of_rows,
    .packer_of_columns = packer_of_columns,
    .decode_rows = decode_rows,
    .attention_forward = attention_forward,
    .attention_decode = attention_decode,
    .attention_backward = attention_backward,
    .gelu = gelu,
    .gelu_gradient = gelu_gradient,
    .swiglu = swiglu,
    .swiglu_gradient = swiglu_gradient,
    .dropout = dropout,
    .layer_norm = layer_norm,
    .layer_norm_gradients = layer_norm_gradients,
    .rms_norm = rms_norm,
    .rms_norm_gradients = rms_norm_gradients,
    .rotate = rotate,
};

}  // namespace gp::GP_PATH
