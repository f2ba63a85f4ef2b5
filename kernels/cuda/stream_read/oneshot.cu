// stream_read / oneshot: reads BYTES once and adds all 32-bit words; every thread requests BATCH loads and is done.
//
//   data  [BYTES], BYTES % 16 == 0     y  u32 [blocks]: the wrapping sums of the words that each block read
//
// The floor of every GEMV under a plain graph: nothing but loads, 16 bytes each and BATCH of them in flight per thread.
//
// Tunables (set with -D; values and constraints in variants/spaces/stream_read.toml)
//   WARPS  warps of a block     BATCH  16-byte loads that a thread requests at once
#if !defined(WARPS) || !defined(BATCH)
#error "stream_read/oneshot: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "warp.cuh"

static_assert(WARPS >= 1 && WARPS <= 32, "a block has 1024 threads at most");
constexpr int THREADS = WARPS * WARP;

extern "C" __global__ void __launch_bounds__(THREADS)
stream_read_oneshot(const u8* __restrict__ data, u32* y, i64 BYTES) {
    __shared__ u32 partial[WARPS];
    const i64 n = BYTES / 16;
    const i64 first = (i64)blockIdx.x * (THREADS * BATCH) + threadIdx.x;
    uint4 v[BATCH];
    pdl_launch();
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
        i64 at = first + i * THREADS;
        v[i] = at < n ? load_weights_16(data + at * 16) : make_uint4(0, 0, 0, 0);
    }
    u32 sum = 0;
#pragma unroll
    for (int i = 0; i < BATCH; i++) sum += v[i].x + v[i].y + v[i].z + v[i].w;
    sum = (u32)warp_sum((int)sum);
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 total = 0;
        for (int w = 0; w < WARPS; w++) total += partial[w];
        pdl_wait();
        y[blockIdx.x] = total;
    }
}
