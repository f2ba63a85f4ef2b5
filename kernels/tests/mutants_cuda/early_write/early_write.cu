// gemv_q4_0 / early_write: deliberately wrong, for tests of the gate only.
//
// The output is zeroed before the wait for the kernel ahead, which may still read or write there.
#include "pdl.cuh"
#include "warp.cuh"

#define ROWS 4

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

extern "C" __global__ void __launch_bounds__(ROWS * WARP)
early_write(const u8* W, const float* x, float* y, int N, int K, int M) {
    const int lane = threadIdx.x % WARP, row = blockIdx.x * ROWS + threadIdx.x / WARP;
    (void)M;
    pdl_launch();
    x += (u64)blockIdx.y * K;
    y += (u64)blockIdx.y * N;
    if (row < N && lane == 0) y[row] = 0.0f;  // BUG
    pdl_wait();
    if (row >= N) return;
    float sum = 0.0f;
    for (int block = lane; block < K / 32; block += WARP) {
        const u8* b = W + ((u64)row * (K / 32) + block) * 18;
        const float d = f16_at(b);
        for (int j = 0; j < 16; ++j) {
            const int low = (int)(b[2 + j] & 15) - 8, high = (int)(b[2 + j] >> 4) - 8;
            sum += d * (float)low * x[block * 32 + j];
            sum += d * (float)high * x[block * 32 + 16 + j];
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) ((volatile float*)y)[row] += sum;
}
