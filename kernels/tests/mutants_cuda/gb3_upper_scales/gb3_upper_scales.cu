// gemv_q4_k / gb3_upper_scales: deliberately wrong, for tests of the gate only.
//
// GB3: the scales of sub-blocks 4 to 7 are unpacked without their upper two bits.
#include "gemv_k/block_sum.cuh"
#include "pdl.cuh"

#define THREADS 128

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

__device__ __forceinline__ float weight_at(const u8* row, int i) {
    const u8* b = row + (u64)(i / 256) * 144;
    const u8* s = b + 4;
    const int sub = i % 256 / 32, m = i % 32;
    const int scale = sub < 4 ? s[sub] & 63 : s[sub + 4] & 15;  // BUG
    const int minimum = sub < 4 ? s[sub + 4] & 63 : s[sub + 4] >> 4 | s[sub] >> 6 << 4;
    const int code = b[16 + sub / 2 * 32 + m] >> (sub % 2 * 4) & 15;
    return f16_at(b) * (float)scale * (float)code - f16_at(b + 2) * (float)minimum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
gb3_upper_scales(const u8* W, const float* x, float* y, int N, int K, int M) {
    __shared__ float parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    pdl_wait();
    const u8* row = W + (u64)blockIdx.x * (K / 256 * 144);
    x += (u64)blockIdx.y * K;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += weight_at(row, i) * x[i];
    sum = block_sum<THREADS>(sum, parts);
    if (threadIdx.x == 0) y[(u64)blockIdx.y * N + blockIdx.x] = sum;
}
