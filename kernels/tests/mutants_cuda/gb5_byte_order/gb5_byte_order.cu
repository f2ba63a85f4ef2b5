// gemv_ternary / gb5_byte_order: deliberately wrong, for tests of the gate only.
//
// GB5: the planes of TQ2_0 are taken in byte order, four neighbouring weights to a byte.
#include "gemv_k/block_sum.cuh"
#include "pdl.cuh"

#define THREADS 128

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

__device__ __forceinline__ float weight_at(const u8* row, int i) {
    const u8* b = row + (u64)(i / 256) * 66;
    return f16_at(b + 64) * (float)((b[i % 256 / 4] >> (i % 4 * 2) & 3) - 1);
}

extern "C" __global__ void __launch_bounds__(THREADS)
gb5_byte_order(const u8* W, const float* x, float* y, int N, int K, int M) {
    __shared__ float parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    pdl_wait();
    const u8* row = W + (u64)blockIdx.x * (K / 256 * 66);
    x += (u64)blockIdx.y * K;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += weight_at(row, i) * x[i];
    sum = block_sum<THREADS>(sum, parts);
    if (threadIdx.x == 0) y[(u64)blockIdx.y * N + blockIdx.x] = sum;
}
