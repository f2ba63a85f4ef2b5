// gemv_add / plain: y = r + W x, a block for each row.
//
//   W  blocks of the file [N, K]     x  a slab a8/32 of [K], or f32 [K] for formats of floats     r, y  f32 [N], which may be the same
//
// The baseline: weights and activations decoded one by one, sums in f32. FORMAT (a constant of the space) names the block
// type. No tunables.
#include "decode/plain.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_add_plain(const u8* W,     // weights, see above
               const u8* x,     // [K]
               const float* r,  // [N]
               float* y,        // [N]
               int N, int K) {
    __shared__ float parts[THREADS / WARP];
    pdl_launch();
    pdl_wait();
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) {
#if FLOATS
        const float value = ((const float*)x)[i];
#else
        const float value = *(const float*)(x + K + i / 32 * 8) * (float)(i8)x[i];
#endif
        sum += plain_weight(W, blockIdx.x, i, N, K) * value;
    }
    sum = block_sum<THREADS>(sum, parts);
    if (threadIdx.x == 0) y[blockIdx.x] = r[blockIdx.x] + sum;
}
