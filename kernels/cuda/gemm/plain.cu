// gemm / plain: y = W x (+ r) for many tokens, tiles of 16 rows by 16 tokens in floats.
//
//   W  blocks of the file [N, K]     x  f16 [M, K]     r  f32 [M, N], null, or y     y  f32 [M, N]
//
// The baseline: weights decoded one by one from bytes, products and sums in f32. FORMAT (a constant of the space) names the
// block type. K % 16 == 0. No tunables.
#include "decode/plain.cuh"

#define TILE 16

extern "C" __global__ void __launch_bounds__(THREADS)
gemm_plain(const u8* W,     // blocks of [N, K]
           const u16* x,    // [M, K]
           const float* r,  // [M, N] or null
           float* y,        // [M, N]
           int N, int K, int M) {
    // A column more than are used, so that rows start in different banks.
    __shared__ float weights[TILE][TILE + 1], activations[TILE][TILE + 1];
    const int i = threadIdx.x % TILE, j = threadIdx.x / TILE;
    const int row0 = blockIdx.x * TILE, token0 = blockIdx.y * TILE;
    pdl_launch();
    pdl_wait();
    float sum = 0.0f;
    for (int k = 0; k < K; k += TILE) {
        weights[j][i] = row0 + j < N ? plain_weight(W, row0 + j, k + i, N, K) : 0.0f;
        activations[j][i] = token0 + j < M ? f16_to_f32(x[(u64)(token0 + j) * K + k + i]) : 0.0f;
        __syncthreads();
        for (int c = 0; c < TILE; ++c) sum += weights[i][c] * activations[j][c];
        __syncthreads();
    }
    if (row0 + i < N && token0 + j < M) {
        const u64 at = (u64)(token0 + j) * N + row0 + i;
        y[at] = r != nullptr ? r[at] + sum : sum;
    }
}
