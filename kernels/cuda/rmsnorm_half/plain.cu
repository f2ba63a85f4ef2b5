// rmsnorm_half / plain: y = w x / sqrt(mean(x^2) + eps) in 16-bit floats, a block for each token.
//
//   x  f32 [M, K]     w  f32 [K]     y  f16 [M, K]
//
// The baseline: one float a thread at a time, compensated f32 sums, two passes over x. Any K.
#include "half.cuh"
#include "pdl.cuh"
#include "rmsnorm/sum_of_squares.cuh"

#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS)
rmsnorm_half_plain(const float* x,  // [M, K]
                   const float* w,  // [K]
                   u16* y,          // [M, K]
                   int K, int M, float eps) {
    __shared__ float2 parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    pdl_wait();
    x += (u64)blockIdx.x * K;
    y += (u64)blockIdx.x * K;
    Compensated sum = {0.0f, 0.0f};
    for (int i = threadIdx.x; i < K; i += THREADS) sum.add_square(x[i]);
    const float scale = 1.0f / sqrtf(block_sum_of_squares<THREADS>(sum, parts) / (float)K + eps);
    for (int i = threadIdx.x; i < K; i += THREADS) y[i] = f32_to_f16_saturated(x[i] * scale * w[i]);
}
