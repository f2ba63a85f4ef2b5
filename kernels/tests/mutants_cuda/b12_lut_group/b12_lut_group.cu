// gemv_ternary / b12_lut_group: deliberately wrong, for tests of the gate only.
//
// B12: the look-up leaves out the offset of its lane and reads the first lane's table.
#include "pdl.cuh"
#include "warp.cuh"

#define WARPS 4
#define ROWS 8
#define ENTRIES 16
static_assert(WARPS * 2 * ENTRIES * WARP * 4 <= 48 * 1024, "the tables of a block must fit in 48 KiB of shared memory");

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
b12_lut_group(const u8* W,     // [N, K/256] blocks of 66 bytes
                      const float* x,  // [M, K]
                      float* y,        // [M, N]
                      int N, int K, int M) {
    __shared__ float tables[WARPS][2 * ENTRIES * WARP];
    (void)M;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first = (blockIdx.x * WARPS + warp) * ROWS;
    float* const low = tables[warp] + lane;
    float* const high = low + ENTRIES * WARP;
    const u64 row_bytes = (u64)(K / 256) * 66;
    x += (u64)blockIdx.y * K;
    pdl_launch();
    pdl_wait();
    float sums[ROWS] = {};
    for (int half = 0; half < K / 128; ++half) {
        const float* at = x + half * 128 + lane;
        const float a = at[0], b = at[32], c = at[64], d = at[96];
#pragma unroll
        for (int e = 0; e < ENTRIES; ++e) {
            low[e * WARP] = (float)(e % 4 - 1) * a + (float)(e / 4 - 1) * b;
            high[e * WARP] = (float)(e % 4 - 1) * c + (float)(e / 4 - 1) * d;
        }
        const u8* block = W + (u64)(half / 2) * 66;
        u8 codes[ROWS];
        u16 scales[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const u8* of_row = block + (u64)min(first + r, N - 1) * row_bytes;
            codes[r] = of_row[half % 2 * 32 + lane];
            scales[r] = load_weights_2(of_row + 64);
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            sums[r] += f16_to_f32(scales[r]) * (tables[warp][(codes[r] & 15) * WARP] + high[(codes[r] >> 4) * WARP]);  // BUG
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const float sum = warp_sum(sums[r]);
        if (lane == 0 && first + r < N) y[(u64)blockIdx.y * N + first + r] = sum;
    }
}
