// quantize_a8 / vector: activations of one token as a slab a8/32, VEC floats a lane, 32 / VEC lanes to a group.
//
//   x  f32 [K]     slab  K int8, then K/32 pairs (f32 s, f32 t), zeros up to a multiple of 16
//
// The same arithmetic as plain. Loads are 16 bytes, the largest and the sum come by shuffles within the group, codes are
// stored a word at a time. Needs K % 32 == 0.
//
// Tunables (set with -D; values and constraints in variants/spaces/quantize_a8.toml)
//   THREADS  threads in a block
//   VEC      floats of a lane: 4 or 8
#if !defined(THREADS) || !defined(VEC)
#error "quantize_a8/vector: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"

static_assert(VEC == 4 || VEC == 8, "a lane takes 4 or 8 floats");
static_assert(THREADS % WARP == 0 && THREADS <= 1024, "a block is whole warps");
#define LANES (32 / VEC)

extern "C" __global__ void __launch_bounds__(THREADS)
quantize_a8_vector(const float* x,  // [K]
                   u8* slab,        // see above
                   int K) {
    pdl_launch();
    pdl_wait();
    const int at = (blockIdx.x * THREADS + threadIdx.x) * VEC;
    const bool within = at < K;
    float4 v[VEC / 4];
#pragma unroll
    for (int i = 0; i < VEC / 4; ++i) v[i] = within ? ((const float4*)(x + at))[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < VEC / 4; ++i)
        largest = fmaxf(largest, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, offset));
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    int sum = 0;
    u32 words[VEC / 4];
#pragma unroll
    for (int i = 0; i < VEC / 4; ++i) {
        const int a = a8_code(v[i].x, inverse), b = a8_code(v[i].y, inverse);
        const int c = a8_code(v[i].z, inverse), d = a8_code(v[i].w, inverse);
        words[i] = (u32)(a & 255) | (u32)(b & 255) << 8 | (u32)(c & 255) << 16 | (u32)(d & 255) << 24;
        sum += a + b + c + d;
    }
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
    if (!within) return;
#pragma unroll
    for (int i = 0; i < VEC / 4; ++i) ((u32*)(slab + at))[i] = words[i];
    if (threadIdx.x % LANES == 0) {
        const int group = at / 32;
        const float s = largest / 127.0f;
        float2* pairs = (float2*)(slab + K);
        pairs[group] = make_float2(s, s * (float)sum);
        if (group == K / 32 - 1 && K / 32 % 2 == 1) pairs[group + 1] = make_float2(0.0f, 0.0f);
    }
}
