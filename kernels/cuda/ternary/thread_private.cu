// gemv_ternary / thread_private: y = W x for TQ2_0, a block for each row, sums private to a thread (V53).
//
//   W  TQ2_0 blocks of the file [N, K/256]     x  f32 [M, K]     y  f32 [M, N]
//
//          byte   0        64
//                 | qs[64] | d |      byte m of half h: weights 128 h + m, + 32, + 64, + 96; w = d (code - 1)
//
// A thread takes a byte, four weights, adds or subtracts the activations and multiplies once by the scale: no table, no
// atomics. Needs K % 256 == 0. Code 3 is illegal and does not occur.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_ternary.toml)
//   THREADS  threads in a block
#if !defined(THREADS)
#error "gemv_ternary/thread_private: every tunable must be set by the build"
#endif
#include "gemv_k/block_sum.cuh"
#include "pdl.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_ternary_thread_private(const u8* W,     // [N, K/256] blocks of 66 bytes
                            const float* x,  // [M, K]
                            float* y,        // [M, N]
                            int N, int K, int M) {
    __shared__ float parts[THREADS / WARP];
    (void)M;
    const u8* row = W + (u64)blockIdx.x * (K / 256) * 66;
    x += (u64)blockIdx.y * K;
    pdl_launch();
    pdl_wait();
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K / 4; i += THREADS) {
        const u8* block = row + (u64)(i / 64) * 66;
        const u32 codes = block[i % 64];
        const float* at = x + i / 32 * 128 + i % 32;
        float of_byte = 0.0f;
#pragma unroll
        for (int p = 0; p < 4; ++p) {
            const int code = codes >> (2 * p) & 3;
            const float v = at[32 * p];
            of_byte += code == 2 ? v : code == 0 ? -v : 0.0f;
        }
        sum += f16_to_f32((u16)(block[64] | block[65] << 8)) * of_byte;
    }
    sum = block_sum<THREADS>(sum, parts);
    if (threadIdx.x == 0) y[(u64)blockIdx.y * N + blockIdx.x] = sum;
}
