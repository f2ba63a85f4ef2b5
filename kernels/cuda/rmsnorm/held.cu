// rmsnorm / held: y = w x / sqrt(mean(x^2) + eps) with the whole token in registers, a block for each token.
//
//   x  f32 [M, K]     w  f32 [K]     y  f32 [M, K]
//
// Every load of a thread is under way at once: the weights before the wait for the kernel ahead, x right after it, and x is
// read once. With THREADS = 32 it is a warp to a token and needs no barrier. Sums are compensated f32. Needs
// K % VEC == 0 and K <= THREADS * VEC * HOLD.
//
// Tunables (set with -D; values and constraints in variants/spaces/rmsnorm.toml)
//   THREADS  threads in a block
//   VEC      floats in a load: 1, 2 or 4
//   HOLD     loads of a thread
#if !defined(THREADS) || !defined(VEC) || !defined(HOLD)
#error "rmsnorm/held: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "rmsnorm/sum_of_squares.cuh"

static_assert(VEC == 1 || VEC == 2 || VEC == 4, "a load has 1, 2 or 4 floats");
static_assert(THREADS % WARP == 0 && THREADS <= 1024, "a block is whole warps");

struct alignas(4 * VEC) Floats {
    float v[VEC];
};

extern "C" __global__ void __launch_bounds__(THREADS)
rmsnorm_held(const float* x,  // [M, K]
             const float* w,  // [K]
             float* y,        // [M, K]
             int K, int M, float eps) {
    __shared__ float2 parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    Floats weights[HOLD], values[HOLD];
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        const int at = (h * THREADS + (int)threadIdx.x) * VEC;
        if (at < K) weights[h] = *(const Floats*)(w + at);
    }
    pdl_wait();
    x += (u64)blockIdx.x * K;
    y += (u64)blockIdx.x * K;
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        const int at = (h * THREADS + (int)threadIdx.x) * VEC;
        if (at < K) values[h] = *(const Floats*)(x + at);
    }
    Compensated sum = {0.0f, 0.0f};
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        if ((h * THREADS + (int)threadIdx.x) * VEC < K) {
#pragma unroll
            for (int i = 0; i < VEC; ++i) sum.add_square(values[h].v[i]);
        }
    }
    const float scale = 1.0f / sqrtf(block_sum_of_squares<THREADS>(sum, parts) / (float)K + eps);
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        const int at = (h * THREADS + (int)threadIdx.x) * VEC;
        if (at < K) {
            Floats out;
#pragma unroll
            for (int i = 0; i < VEC; ++i) out.v[i] = values[h].v[i] * scale * weights[h].v[i];
            *(Floats*)(y + at) = out;
        }
    }
}
