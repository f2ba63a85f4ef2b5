// gemv_q6_k / gb4_offset_forgotten: deliberately wrong, for tests of the gate only.
//
// GB4: the offset of 32 of Q6_K is forgotten.
#include "gemv_k/block_sum.cuh"
#include "pdl.cuh"

#define THREADS 128

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

__device__ __forceinline__ float weight_at(const u8* row, int i) {
    const u8* b = row + (u64)(i / 256) * 210;
    const int half = i % 256 / 128, quarter = i % 128 / 32, l = i % 32;
    const int low = b[half * 64 + l + quarter % 2 * 32] >> (quarter / 2 * 4) & 15;
    const int high = b[128 + half * 32 + l] >> (quarter * 2) & 3;
    const float scale = f16_at(b + 208) * (float)(i8)b[192 + half * 8 + quarter * 2 + l / 16];
    return scale * (float)(low | high << 4);
}

extern "C" __global__ void __launch_bounds__(THREADS)
gb4_offset_forgotten(const u8* W, const float* x, float* y, int N, int K, int M) {
    __shared__ float parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    pdl_wait();
    const u8* row = W + (u64)blockIdx.x * (K / 256 * 210);
    x += (u64)blockIdx.y * K;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < K; i += THREADS) sum += weight_at(row, i) * x[i];
    sum = block_sum<THREADS>(sum, parts);
    if (threadIdx.x == 0) y[(u64)blockIdx.y * N + blockIdx.x] = sum;
}
