// The end of attention of one token over blocks that each had a share of the keys: the warps of a block meet in shared memory,
// the blocks of a set of heads in scratch memory, where the last to arrive stores the result.
//
//   scratch  u32 [HEADS] counters, at the next multiple of 16 f32 [HEADS, SPLITS, 2]: maximum and sum, then
//            f32 [HEADS, SPLITS, DIM] values; zeroed once and left zeroed
//
// Exponents are of base 2. A part is its values, each a sum of weights times values; its maximum, which the weights are
// relative to; and the sum of its weights. Parts meet in a fixed order, so that results repeat bit for bit.
//
//   WARPS  warps in a block      HPB  query heads of a block      SPLITS  blocks to a set of heads
#ifndef EDGELLM_FINISH_CUH
#define EDGELLM_FINISH_CUH

#include "attn_decode/heads.cuh"
#include "attn_token/slab.cuh"
#include "dialect.cuh"
#include "warp.cuh"

#define THREADS (WARPS * WARP)
static_assert(SPLITS >= 2 && SPLITS <= 256 && SPLITS % 2 == 0, "scratch holds the parts of 256 splits, each aligned");
static_assert(WARPS * HPB * STATE * 4 <= 44 * 1024, "the warps' parts must fit in shared memory");

// The keys of a split: those from `begin` to `end`, none where `end` is not beyond `begin`.
struct Share {
    int active, begin, end;
};

__device__ __forceinline__ Share share_of(int split, int length, int least, int unit) {
    const int each = max(least, ceil_div(ceil_div(length, SPLITS), unit) * unit), begin = split * each;
    return {ceil_div(length, each), begin, min(begin + each, length)};
}

// Loads and stores past L1, for what other blocks have stored or will load. (PTX: ld, st)
__device__ __forceinline__ float4 load_shared_out_16(const float* at) {
#ifdef EDGELLM_EMULATED
    return *(const float4*)at;
#else
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at) : "memory");
    return v;
#endif
}

__device__ __forceinline__ float2 load_shared_out_8(const float* at) {
#ifdef EDGELLM_EMULATED
    return *(const float2*)at;
#else
    float2 v;
    asm volatile("ld.global.cg.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at) : "memory");
    return v;
#endif
}

__device__ __forceinline__ void add_scaled(float4& sum, float4 v, float factor) {
    sum.x += v.x * factor;
    sum.y += v.y * factor;
    sum.z += v.z * factor;
    sum.w += v.w * factor;
}

// What the parts of a block's warps weigh in head h, and the sum and maximum of all.
struct Meeting {
    float top, sum;
    float factors[WARPS];
};

__device__ __forceinline__ Meeting meet(const float* states, int h) {
    Meeting all = {-F32_MAX, 0.0f, {}};
#pragma unroll
    for (int w = 0; w < WARPS; ++w) all.top = fmaxf(all.top, states[(w * HPB + h) * STATE + MOST_DIM]);
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        const float* const of_warp = states + (w * HPB + h) * STATE + MOST_DIM;
        all.factors[w] = exp2f(of_warp[0] - all.top);
        all.sum += of_warp[1] * all.factors[w];
    }
    return all;
}

// Every thread of the block calls this behind a barrier, with the parts of the warps in `states`, shared memory of
// [WARPS, HPB, STATE] floats at a multiple of 16. `factors` is shared memory of HPB * SPLITS floats.
__device__ __forceinline__ void finish(float* states, float* factors, u32* arrived, u8* out, u8* scratch, HeadSet set, int split,
                                       int active, int heads, int dim, int bits) {
    const int thread = threadIdx.x, K = heads * dim;
    if (active == 1) {
        for (int i = thread; i < set.count * dim; i += THREADS) {
            const int h = i / dim, d = i % dim;
            const Meeting all = meet(states, h);
            float value = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) value += states[(w * HPB + h) * STATE + d] * all.factors[w];
            store_result(out, K, set.first * dim + i, value / all.sum, bits);
        }
        return;
    }
    u32* const counter = (u32*)scratch + set.first;
    float* const sums = (float*)(scratch + ceil_div(heads * 4, 16) * 16) + (u64)set.first * SPLITS * 2;
    float* const values = (float*)(scratch + ceil_div(heads * 4, 16) * 16) + (u64)heads * SPLITS * 2 + (u64)set.first * SPLITS * dim;
    const int items = set.count * dim / 4;
    for (int i = thread; i < items; i += THREADS) {
        const int h = i * 4 / dim, d = i * 4 % dim;
        const Meeting all = meet(states, h);
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            add_scaled(value, *(const float4*)(states + (w * HPB + h) * STATE + d), all.factors[w]);
        }
        const int part = h * SPLITS + split;
        *(float4*)(values + (u64)part * dim + d) = value;
        if (d == 0) *(float2*)(sums + part * 2) = make_float2(all.top, all.sum);
    }
    // All of the block's stores are out before its ticket is drawn.
    __threadfence();
    __syncthreads();
    if (thread == 0) *arrived = atomicAdd(counter, 1u);
    __syncthreads();
    if (*arrived != (u32)active - 1) return;
    __threadfence();

    const int warp = thread / WARP, lane = thread % WARP;
    for (int h = warp; h < set.count; h += WARPS) {
        float2 parts[ceil_div(SPLITS, WARP)];
        float top = -F32_MAX, sum = 0.0f;
#pragma unroll
        for (int i = 0; i < ceil_div(SPLITS, WARP); ++i) {
            const int p = i * WARP + lane;
            parts[i] = make_float2(-F32_MAX, 0.0f);
            if (p < active) {
                parts[i] = load_shared_out_8(sums + (h * SPLITS + p) * 2);
                *(float2*)(sums + (h * SPLITS + p) * 2) = make_float2(0.0f, 0.0f);
            }
            top = fmaxf(top, parts[i].x);
        }
        top = warp_max(top);
#pragma unroll
        for (int i = 0; i < ceil_div(SPLITS, WARP); ++i) {
            parts[i].x = exp2f(parts[i].x - top);
            sum += parts[i].y * parts[i].x;
        }
        const float inverse = 1.0f / warp_sum(sum);
#pragma unroll
        for (int i = 0; i < ceil_div(SPLITS, WARP); ++i) {
            const int p = i * WARP + lane;
            if (p < active) factors[h * SPLITS + p] = parts[i].x * inverse;
        }
    }
    __syncthreads();
    // Where there are more threads than runs of four dimensions, several take every so many-th part and meet again.
    const int rounds = max(1, THREADS / items);
    for (int w = thread; w < items * rounds; w += THREADS) {
        const int item = w % items, round = w / items, h = item * 4 / dim, d = item * 4 % dim;
        float* const from = values + (u64)h * SPLITS * dim + d;
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int p = round; p < active; p += 8 * rounds) {
            float4 some[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int part = p + i * rounds;
                some[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (part < active) some[i] = load_shared_out_16(from + (u64)part * dim);
            }
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int part = p + i * rounds;
                if (part < active) {
                    add_scaled(value, some[i], factors[h * SPLITS + part]);
                    *(float4*)(from + (u64)part * dim) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                }
            }
        }
        *(float4*)(states + w * 4) = value;
    }
    if (thread == 0) *counter = 0;
    __syncthreads();
    for (int i = thread; i < set.count * dim; i += THREADS) {
        float value = 0.0f;
        for (int round = 0; round < rounds; ++round) value += states[round * items * 4 + i];
        store_result(out, K, set.first * dim + i, value, bits);
    }
}

#endif
