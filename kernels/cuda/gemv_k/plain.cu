// gemv_q4_k, gemv_q5_k, gemv_q6_k / plain: y = W x, a block for each row, a thread for each weight in turn.
//
//   W  blocks of the file [N, K/256]     x  f32 [M, K]     y  f32 [M, N]
//
// The baseline: every weight is decoded on its own from bytes, multiplied in f32 and summed per thread, warp and block.
// Needs K % 256 == 0. FORMAT (a constant of the space) names the block type.
#ifndef FORMAT
#error "plain: FORMAT must be set by the build"
#endif
#include "gemv_k/block_sum.cuh"
#include "gemv_k/decode.cuh"
#include "pdl.cuh"

#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_k_plain(const u8* W,     // [N, K/256] blocks
             const float* x,  // [M, K]
             float* y,        // [M, N]
             int N, int K, int M) {
    (void)M;
    __shared__ float parts[THREADS / WARP];
    const u8* row = W + (u64)blockIdx.x * row_bytes(K);
    x += (u64)blockIdx.y * K;
    pdl_launch();
    pdl_wait();
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += weight_at(row, i) * x[i];
    sum = block_sum<THREADS>(sum, parts);
    if (threadIdx.x == 0) y[(u64)blockIdx.y * N + blockIdx.x] = sum;
}
