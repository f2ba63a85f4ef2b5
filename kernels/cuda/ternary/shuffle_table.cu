// gemv_ternary / shuffle_table: y = W x for TQ2_0 by look-up in a table that lies in the registers of a warp (V56).
//
//   W  TQ2_0 blocks of the file [N, K/256]     x  f32 [M, K]     y  f32 [M, N]
//
// A lane has a row of its own. For byte m of a half block, lanes 0 to 15 hold the 16 sums of the columns m and m + 32, lanes
// 16 to 31 those of m + 64 and m + 96; a lane looks the two nibbles of its row up with two shuffles, which every lane of the
// warp takes part in. The warps of a block share 32 rows, each with every WARPS-th half block, and meet in shared memory.
// Needs K % 256 == 0. Code 3 is illegal; its entries are never read.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_ternary.toml)
//   WARPS  warps that share the columns of 32 rows
#if !defined(WARPS)
#error "gemv_ternary/shuffle_table: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemv_ternary_shuffle_table(const u8* W,     // [N, K/256] blocks of 66 bytes
                           const float* x,  // [M, K]
                           float* y,        // [M, N]
                           int N, int K, int M) {
    __shared__ float parts[WARPS][WARP];
    (void)M;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = blockIdx.x * WARP + lane;
    const u8* of_row = W + (u64)min(row, N - 1) * (K / 256) * 66;
    x += (u64)blockIdx.y * K + lane / 16 * 64;
    // Entry e = lane % 16 of the table: codes e % 4 and e / 4.
    const float first = (float)(lane % 4 - 1), second = (float)(lane % 16 / 4 - 1);
    pdl_launch();
    u16 codes[16];
    float sum = 0.0f;
    for (int half = warp; half < K / 128; half += WARPS) {
        const u8* block = of_row + (u64)(half / 2) * 66;
#pragma unroll
        for (int i = 0; i < 16; ++i) codes[i] = load_weights_2(block + half % 2 * 32 + i * 2);
        const float scale = f16_to_f32(load_weights_2(block + 64));
        if (half == warp) pdl_wait();
        const float* at = x + half * 128;
        float of_half = 0.0f;
#pragma unroll
        for (int m = 0; m < 32; ++m) {
            const u32 code = m % 2 == 0 ? codes[m / 2] & 255u : (u32)codes[m / 2] >> 8;
            const float entry = first * at[m] + second * at[m + 32];
            of_half += __shfl_sync(FULL_WARP, entry, (int)(code & 15u));
            of_half += __shfl_sync(FULL_WARP, entry, (int)(16 + (code >> 4)));
        }
        sum += scale * of_half;
    }
    parts[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || row >= N) return;
    for (int w = 1; w < WARPS; ++w) sum += parts[w][lane];
    // A warp without a half block has not waited yet; the one that stores has, as there are two half blocks at least.
    y[(u64)blockIdx.y * N + row] = sum;
}
