// gemv_q4_0 / b7_column_major: deliberately wrong, for tests of the gate only.
//
// B7: a row-major tile of weights is loaded as a column-major one.
#include "mma.cuh"
#include "pdl.cuh"

#define TILE 16

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

// The code minus 8 of column `k` of a row, as f16 bits; exact.
__device__ __forceinline__ u32 code_at(const u8* row, int k) {
    return f32_to_f16((float)((row[k / 32 * 18 + 2 + k % 16] >> (k % 32 / 16 * 4) & 15) - 8));
}

extern "C" __global__ void __launch_bounds__(WARP)
b7_column_major(const u8* W, const u16* x, float* y, int N, int K, int M) {
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4, first = blockIdx.x * TILE;
    (void)M;
    pdl_launch();
    pdl_wait();
    x += (u64)blockIdx.y * K;
    y += (u64)blockIdx.y * N;
    const u64 bytes = (u64)(K / 32) * 18;
    const u8* rows[2] = {W + min(first + g, N - 1) * bytes, W + min(first + g + 8, N - 1) * bytes};
    float sums[2] = {0.0f, 0.0f};
    for (int block = 0; block < K / 32; ++block) {
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int step = 0; step < 2; ++step) {
            const int k = block * 32 + step * 16;
            u32 a[4], b[2];
            for (int w = 0; w < 4; ++w) {
                const int column = k + 2 * t + w % 2 * 8;  // BUG
                a[w] = code_at(rows[w / 2], column) | code_at(rows[w / 2], column + 1) << 16;
            }
            for (int w = 0; w < 2; ++w) {
                const int column = k + 2 * t + w * 8;
                b[w] = g == 0 ? x[column] | (u32)x[column + 1] << 16 : 0u;
            }
            mma_f16_k16(d, a, b);
        }
        sums[0] += f16_at(rows[0] + block * 18) * d[0];
        sums[1] += f16_at(rows[1] + block * 18) * d[2];
    }
    if (t == 0 && first + g < N) y[first + g] = sums[0];
    if (t == 0 && first + g + 8 < N) y[first + g + 8] = sums[1];
}
