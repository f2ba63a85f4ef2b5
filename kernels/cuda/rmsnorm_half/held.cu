// rmsnorm_half / held: y = w x / sqrt(mean(x^2) + eps) in 16-bit floats with the whole token in registers, a block for each.
//
//   x  f32 [M, K]     w  f32 [K]     y  f16 [M, K]
//
// Every load of a thread is under way at once: the weights before the wait for the kernel ahead, x right after it, and x is
// read once. With THREADS = 32 it is a warp to a token and needs no barrier. Sums are compensated f32. Needs
// K % VEC == 0 and K <= THREADS * VEC * HOLD.
//
// Tunables (set with -D; values and constraints in variants/spaces/rmsnorm_half.toml)
//   THREADS  threads in a block
//   VEC      neighbouring elements that a thread takes at once: 4 or 8
//   HOLD     how many times it does
#if !defined(THREADS) || !defined(VEC) || !defined(HOLD)
#error "rmsnorm_half/held: every tunable must be set by the build"
#endif
#include "half.cuh"
#include "pdl.cuh"
#include "rmsnorm/sum_of_squares.cuh"

static_assert(VEC == 4 || VEC == 8, "a thread takes 4 or 8 elements at once");
static_assert(THREADS % WARP == 0 && THREADS <= 1024, "a block is whole warps");

struct Floats {
    float4 v[VEC / 4];
};

__device__ __forceinline__ Floats load_floats(const float* at) {
    Floats f;
#pragma unroll
    for (int i = 0; i < VEC / 4; ++i) f.v[i] = ((const float4*)at)[i];
    return f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
rmsnorm_half_held(const float* x,  // [M, K]
                  const float* w,  // [K]
                  u16* y,          // [M, K]
                  int K, int M, float eps) {
    __shared__ float2 parts[THREADS / WARP];
    (void)M;
    pdl_launch();
    Floats weights[HOLD], values[HOLD];
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        const int at = (h * THREADS + (int)threadIdx.x) * VEC;
        if (at < K) weights[h] = load_floats(w + at);
    }
    pdl_wait();
    x += (u64)blockIdx.x * K;
    y += (u64)blockIdx.x * K;
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        const int at = (h * THREADS + (int)threadIdx.x) * VEC;
        if (at < K) values[h] = load_floats(x + at);
    }
    Compensated sum = {0.0f, 0.0f};
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        if ((h * THREADS + (int)threadIdx.x) * VEC < K) {
#pragma unroll
            for (int i = 0; i < VEC / 4; ++i) {
                sum.add_square(values[h].v[i].x);
                sum.add_square(values[h].v[i].y);
                sum.add_square(values[h].v[i].z);
                sum.add_square(values[h].v[i].w);
            }
        }
    }
    const float scale = 1.0f / sqrtf(block_sum_of_squares<THREADS>(sum, parts) / (float)K + eps);
#pragma unroll
    for (int h = 0; h < HOLD; ++h) {
        const int at = (h * THREADS + (int)threadIdx.x) * VEC;
        if (at < K) {
            u32 words[VEC / 2];
#pragma unroll
            for (int i = 0; i < VEC / 4; ++i) {
                const float4 v = values[h].v[i], g = weights[h].v[i];
                words[2 * i] = pack_halves_saturated(v.x * scale * g.x, v.y * scale * g.y);
                words[2 * i + 1] = pack_halves_saturated(v.z * scale * g.z, v.w * scale * g.w);
            }
#if VEC == 8
            *(uint4*)(y + at) = make_uint4(words[0], words[1], words[2], words[3]);
#else
            *(uint2*)(y + at) = make_uint2(words[0], words[1]);
#endif
        }
    }
}
