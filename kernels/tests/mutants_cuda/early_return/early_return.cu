// gemv_q4_0 / early_return: deliberately wrong, for tests of the gate only.
//
// GB10: threads without a column leave before the barrier that the others wait at.
#include "pdl.cuh"
#include "warp.cuh"

#define WARPS 4

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
early_return(const u8* W, const float* x, float* y, int N, int K, int M) {
    __shared__ float staged[WARPS * WARP];
    __shared__ float parts[WARPS];
    const int row = blockIdx.x;
    (void)M;
    pdl_launch();
    pdl_wait();
    x += (u64)blockIdx.y * K;
    y += (u64)blockIdx.y * N;
    float sum = 0.0f;
    for (int first = 0; first < K; first += WARPS * WARP) {
        const int mine = first + (int)(threadIdx.x ^ 127u);
        staged[threadIdx.x ^ 127u] = mine < K ? x[mine] : 0.0f;
        __syncthreads();
        const int i = first + threadIdx.x;
        if (i >= K) return;  // BUG
        if (i < K) {
            const u8* b = W + ((u64)row * (K / 32) + i / 32) * 18;
            const int code = b[2 + i % 16] >> (i % 32 / 16 * 4) & 15;
            sum += f16_at(b) * (float)(code - 8) * staged[threadIdx.x];
        }
        __syncthreads();
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) y[row] = parts[0] + parts[1] + parts[2] + parts[3];
}
