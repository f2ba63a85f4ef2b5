// swiglu / vector: out = gate / (1 + exp(-gate)) * up, VEC results of a token a thread.
//
//   gu  f32 [M, 2 F], the gates of a token and then its ups     out  by OUT: f32 [M, F], f16 [M, F], or M slabs a8/32
//
// Gates and ups of a thread are requested together, 16 bytes a load. In slabs the largest magnitude and the sum of a group
// come by shuffles over the 32 / VEC lanes that share it. Needs F % 32 == 0.
//
// Tunables (set with -D; values and constraints in variants/spaces/swiglu.toml)
//   THREADS  threads in a block
//   VEC      results of a thread: 4 or 8
#if !defined(THREADS) || !defined(VEC)
#error "swiglu/vector: every tunable must be set by the build"
#endif
#include "half.cuh"
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"
#include "slab.cuh"

static_assert(VEC == 4 || VEC == 8, "a thread makes 4 or 8 results");
static_assert(THREADS % WARP == 0 && THREADS <= 1024, "a block is whole warps");
#define LANES (32 / VEC)

__device__ __forceinline__ float gated(float gate, float up) {
    // An infinite exponential leaves zero, as it should.
    return __fdividef(gate, 1.0f + __expf(-gate)) * up;
}

extern "C" __global__ void __launch_bounds__(THREADS)
swiglu_vector(const float* gu,  // [M, 2 F]
              u8* out,          // see above
              int F, int M, int OUT) {
    (void)M;
    pdl_launch();
    pdl_wait();
    const int at = (blockIdx.x * THREADS + threadIdx.x) * VEC;
    const bool within = at < F;
    const float* row = gu + (u64)blockIdx.y * 2 * F;
    float4 gates[VEC / 4], ups[VEC / 4], v[VEC / 4];
#pragma unroll
    for (int i = 0; i < VEC / 4; ++i) {
        gates[i] = ups[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (within) {
            gates[i] = ((const float4*)(row + at))[i];
            ups[i] = ((const float4*)(row + F + at))[i];
        }
    }
#pragma unroll
    for (int i = 0; i < VEC / 4; ++i) {
        v[i] = make_float4(gated(gates[i].x, ups[i].x), gated(gates[i].y, ups[i].y), gated(gates[i].z, ups[i].z),
                           gated(gates[i].w, ups[i].w));
    }
    const u64 first = (u64)blockIdx.y * F + at;
    if (OUT == 32) {
#pragma unroll
        for (int i = 0; i < VEC / 4; ++i) {
            if (within) ((float4*)((float*)out + first))[i] = v[i];
        }
    } else if (OUT == 16) {
        u32 words[VEC / 2];
#pragma unroll
        for (int i = 0; i < VEC / 4; ++i) {
            words[2 * i] = pack_halves_saturated(v[i].x, v[i].y);
            words[2 * i + 1] = pack_halves_saturated(v[i].z, v[i].w);
        }
        if (within) {
#if VEC == 8
            *(uint4*)((u16*)out + first) = make_uint4(words[0], words[1], words[2], words[3]);
#else
            *(uint2*)((u16*)out + first) = make_uint2(words[0], words[1]);
#endif
        }
    } else {
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
        u8* slab = out + (u64)blockIdx.y * slab_stride(F);
#pragma unroll
        for (int i = 0; i < VEC / 4; ++i) ((u32*)(slab + at))[i] = words[i];
        if (threadIdx.x % LANES == 0) {
            const int group = at / 32;
            const float s = largest / 127.0f;
            float2* pairs = (float2*)(slab + F);
            pairs[group] = make_float2(s, s * (float)sum);
            if (group == F / 32 - 1 && F / 32 % 2 == 1) pairs[group + 1] = make_float2(0.0f, 0.0f);
        }
    }
}
