// All kernels, for the ELEMENT that is defined; without a guard, as kernels.cc includes it once for each.
#include "../../nvrtc/kernels/element.cu"
#include "../../nvrtc/kernels/loss.cu"
#include "../../nvrtc/kernels/low_rank.cu"
#include "../../nvrtc/kernels/norm.cu"
#include "../../nvrtc/kernels/quantised.cu"
#include "../../nvrtc/kernels/rotary.cu"
#include "../../nvrtc/kernels/swiglu.cu"
