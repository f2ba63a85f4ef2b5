// rmsnorm_gemv_q4_0 / b6_fixed_stage: deliberately wrong, for tests of the gate only.
//
// B6: the normed token is staged in a buffer of 1024 floats whatever its length, and runs into the sums behind it.
#include "decode/plain.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
b6_fixed_stage(const u8* W, const float* norm, const float* x, float* y, int N, int K, float eps) {
    DYNAMIC_SHARED(shared);
    __shared__ float parts[THREADS / WARP];
    float* const staged = (float*)shared;
    float* const sums = staged + 1024;  // BUG
    pdl_launch();
    pdl_wait();
    const float scale = norm_scale(x, K, eps, parts);
    for (int i = threadIdx.x; i < K; i += THREADS) staged[i] = x[i] * scale * norm[i];
    __syncthreads();
    sums[threadIdx.x] = 0.0f;
    __syncthreads();
    for (int i = threadIdx.x; i < K; i += THREADS) sums[threadIdx.x] += plain_weight(W, blockIdx.x, i, N, K) * staged[i];
    const float sum = block_sum<THREADS>(sums[threadIdx.x], parts);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
