// rmsnorm / b6_short_buffer: deliberately wrong, for tests of the gate only.
//
// B6: rows longer than 1024 are cut off at the size of a buffer.
#include "gemv_k/block_sum.cuh"
#include "pdl.cuh"

#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS)
b6_short_buffer(const float* x, const float* w, float* y, int K, int M, float eps) {
    __shared__ float parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    pdl_wait();
    x += (u64)blockIdx.x * K;
    y += (u64)blockIdx.x * K;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += x[i] * x[i];
    sum = block_sum<THREADS>(sum, parts);
    const float scale = 1.0f / sqrtf(sum / (float)K + eps);
    for (int i = threadIdx.x; i < min(K, 1024);  /* BUG */ i += THREADS) y[i] = x[i] * scale * w[i];
}
