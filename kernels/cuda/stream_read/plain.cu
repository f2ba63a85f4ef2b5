// stream_read / plain: reads BYTES once and adds all 32-bit words, one word a load, a loop over the grid.
//
//   data  [BYTES], BYTES % 16 == 0     y  u32 [blocks]: the wrapping sums of the words that each block read
//
// The simplest correct read, which the others are compared with. No tunables.
#include "pdl.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(256)
stream_read_plain(const u8* __restrict__ data, u32* y, i64 BYTES) {
    __shared__ u32 partial[256];
    u32 sum = 0;
    pdl_launch();
    pdl_wait();
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < BYTES / 4; i += (i64)gridDim.x * 256) {
        sum += load_weights_4(data + i * 4);
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 total = 0;
        for (int t = 0; t < 256; t++) total += partial[t];
        y[blockIdx.x] = total;
    }
}
