// logits_q8_0 / b8_float_bits: deliberately wrong, for tests of the gate only.
//
// B8: the largest logit is found by an integer maximum of float bits, which orders negative ones backwards.
#include "gemv_k/block_sum.cuh"
#include "logits/argmax.cuh"
#include "pdl.cuh"

#define WARPS 4

__device__ __forceinline__ float f16_at(const u8* at) {
    return f16_to_f32((u16)(at[0] | at[1] << 8));
}

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
b8_float_bits(const u8* W, const float* x, float* y, u32* id, u8* scratch, int N, int K) {
    __shared__ u64 keys[WARPS];
    const int lane = threadIdx.x % WARP, row = blockIdx.x * WARPS + threadIdx.x / WARP;
    pdl_launch();
    pdl_wait();
    float sum = 0.0f;
    for (int i = lane; i < K && row < N; i += WARP) {
        const u8* b = W + ((u64)row * (K / 32) + i / 32) * 34;
        sum += f16_at(b) * (float)(i8)b[2 + i % 32] * x[i];
    }
    sum = warp_sum(sum);
    if (lane == 0 && row < N) y[row] = sum;
    const u64 key = lane == 0 && row < N ? ((u64)__float_as_uint(sum) << 32 | (u64)(u32)~row) : 0;
    if (lane == 0) keys[threadIdx.x / WARP] = key;
    __syncthreads();
    if (threadIdx.x != 0) return;
    u64 best = keys[0];
    for (int w = 1; w < WARPS; ++w) best = keys[w] > best ? keys[w] : best;
    atomicMax((u64*)scratch, best);
    __threadfence();
    if (atomicAdd((u32*)(scratch + 8), 1u) != gridDim.x - 1) return;
    __threadfence();
    best = atomicExch((u64*)scratch, (u64)0);
    *(u32*)(scratch + 8) = 0;
    *id = best == 0 ? 0u : ~(u32)best;
}
