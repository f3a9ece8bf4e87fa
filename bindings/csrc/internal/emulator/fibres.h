// A block's threads as fibres.
#pragma once
#include <functional>

#include "device.h"

namespace emulator {

// run_block runs body once for each thread of a block, which place tells apart. It throws where the threads would not
// all come to a barrier, or the lanes of a warp to a shuffle.
void run_block(Index block, Index grid_size, u32 threads, bool backwards, const std::function<void()>& body);

}  // namespace emulator
