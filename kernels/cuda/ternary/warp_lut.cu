// gemv_ternary / warp_lut: y = W x for TQ2_0 by look-up in a table that a warp keeps in shared memory (V54).
//
//   W  TQ2_0 blocks of the file [N, K/256]     x  f32 [M, K]     y  f32 [M, N]
//
// A byte m of a half block holds the codes of columns m, m + 32, m + 64, m + 96: two nibbles, each one of 16 sums of two
// activations. A lane builds both tables of its byte (2 x 16 floats) and looks ROWS rows up in them, so that the table is
// paid once for ROWS rows. Entry e of lane m lies at word 32 e + m: every lane has its own bank, and no lane reads another's
// table, so no barrier is needed. Needs K % 256 == 0. Code 3 is illegal; its entries are never read.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_ternary.toml)
//   WARPS  warps in a block, each with a table of 4 KiB
//   ROWS   rows of a warp
#if !defined(WARPS) || !defined(ROWS)
#error "gemv_ternary/warp_lut: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "warp.cuh"

#define ENTRIES 16
static_assert(WARPS * 2 * ENTRIES * WARP * 4 <= 48 * 1024, "the tables of a block must fit in 48 KiB of shared memory");

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemv_ternary_warp_lut(const u8* W,     // [N, K/256] blocks of 66 bytes
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
            sums[r] += f16_to_f32(scales[r]) * (low[(codes[r] & 15) * WARP] + high[(codes[r] >> 4) * WARP]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const float sum = warp_sum(sums[r]);
        if (lane == 0 && first + r < N) y[(u64)blockIdx.y * N + first + r] = sum;
    }
}
