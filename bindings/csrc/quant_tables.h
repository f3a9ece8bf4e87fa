// Tables that only rounding to bitsandbytes' formats needs.
#pragma once

namespace gp {

// FP4's values to four decimals: bitsandbytes on the CPU looks for the nearest of these.
extern const float kRoundedFP4[16];

// The map of 8-bit scales of scales (bitsandbytes' dynamic one), in rising order.
void fill_nested_map(float out[256]);

}  // namespace gp
