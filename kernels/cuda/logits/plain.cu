// logits_q8_0, logits_q6_k / plain: all logits and the index of the largest, a block for each row (V32).
//
//   W  blocks of the file     x  f32 [K]     y  f32 [N]     id  u32 [1]
//
// The baseline: weights decoded one by one from bytes, sums in f32. Every block draws a ticket; the last to arrive reads all
// logits again and looks for the largest. FORMAT (a constant of the space) names the block type.
#ifndef FORMAT
#error "plain: FORMAT must be set by the build"
#endif
#include "gemv_k/block_sum.cuh"
#include "gemv_k/decode.cuh"
#include "logits/argmax.cuh"
#include "pdl.cuh"

#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS)
logits_plain(const u8* W,     // [N, K] as blocks
             const float* x,  // [K]
             float* y,        // [N]
             u32* id,         // [1]
             u8* scratch,     // 16 bytes, zeroed once and left zeroed
             int N, int K) {
    __shared__ float parts[THREADS / WARP];
    __shared__ u64 keys[THREADS / WARP];
    __shared__ u32 arrived;
    const u8* row = W + (u64)blockIdx.x * row_bytes(K);
    pdl_launch();
    pdl_wait();
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += weight_at(row, i) * x[i];
    sum = block_sum<THREADS>(sum, parts);
    u32* const ticket = (u32*)(scratch + 8);
    if (threadIdx.x == 0) {
        y[blockIdx.x] = sum;
        // The logit is stored before the ticket is drawn, so that the last block sees all of them.
        __threadfence();
        arrived = atomicAdd(ticket, 1u);
    }
    __syncthreads();
    if (arrived != (u32)N - 1) return;
    __threadfence();
    u64 key = 0;
    for (int i = threadIdx.x; i < N; i += THREADS) {
        const u64 mine = argmax_key(((const volatile float*)y)[i], (u32)i);
        key = mine > key ? mine : key;
    }
    key = warp_max_key(key);
    if (threadIdx.x % WARP == 0) keys[threadIdx.x / WARP] = key;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < THREADS / WARP; ++w) key = keys[w] > key ? keys[w] : key;
    *id = key == 0 ? 0u : ~(u32)key;
    *ticket = 0;
}
