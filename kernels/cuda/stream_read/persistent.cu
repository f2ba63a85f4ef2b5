// stream_read / persistent: reads BYTES once and adds all 32-bit words; a few blocks per SM stride over the data.
//
//   data  [BYTES], BYTES % 16 == 0     y  u32 [blocks]: the wrapping sums of the words that each block read
//
// The floor of every GEMV under programmatic dependent launch: all blocks fit the device at once, so the next kernel's
// first batch is requested while this one drains.
//
// Tunables (set with -D; values and constraints in variants/spaces/stream_read.toml)
//   WARPS  warps of a block     BATCH  16-byte loads that a thread requests at once     BLOCKS_PER_SM  sets the grid
#if !defined(WARPS) || !defined(BATCH) || !defined(BLOCKS_PER_SM)
#error "stream_read/persistent: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "warp.cuh"

static_assert(WARPS >= 1 && WARPS <= 32, "a block has 1024 threads at most");
constexpr int THREADS = WARPS * WARP;

extern "C" __global__ void __launch_bounds__(THREADS)
stream_read_persistent(const u8* __restrict__ data, u32* y, i64 BYTES) {
    __shared__ u32 partial[WARPS];
    const i64 n = BYTES / 16, stride = (i64)gridDim.x * THREADS;
    u32 sum = 0;
    bool waited = false;
    pdl_launch();
    for (i64 first = (i64)blockIdx.x * THREADS + threadIdx.x; first < n; first += stride * BATCH) {
        uint4 v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            i64 at = first + i * stride;
            v[i] = at < n ? load_weights_16(data + at * 16) : make_uint4(0, 0, 0, 0);
        }
        // After the first requests and before the next: no more than one batch runs ahead of the kernel in front.
        if (!waited) {
            pdl_wait();
            waited = true;
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) sum += v[i].x + v[i].y + v[i].z + v[i].w;
    }
    if (!waited) pdl_wait();
    sum = (u32)warp_sum((int)sum);
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 total = 0;
        for (int w = 0; w < WARPS; w++) total += partial[w];
        y[blockIdx.x] = total;
    }
}
