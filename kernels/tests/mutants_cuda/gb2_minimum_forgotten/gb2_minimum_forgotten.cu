// gemv_q4_1 / gb2_minimum_forgotten: deliberately wrong, for tests of the gate only.
//
// GB2: the minimum of Q4_1 is forgotten.
#include "gemv_k/block_sum.cuh"
#include "pdl.cuh"

#define THREADS 128

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

__device__ __forceinline__ float weight_at(const u8* row, int i) {
    const u8* b = row + (u64)(i / 32) * 20;
    return f16_at(b) * (float)(b[4 + i % 16] >> (i % 32 / 16 * 4) & 15);  // BUG
}

extern "C" __global__ void __launch_bounds__(THREADS)
gb2_minimum_forgotten(const u8* W, const float* x, float* y, int N, int K, int M) {
    __shared__ float parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    pdl_wait();
    const u8* row = W + (u64)blockIdx.x * (K / 32 * 20);
    x += (u64)blockIdx.y * K;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += weight_at(row, i) * x[i];
    sum = block_sum<THREADS>(sum, parts);
    if (threadIdx.x == 0) y[(u64)blockIdx.y * N + blockIdx.x] = sum;
}
