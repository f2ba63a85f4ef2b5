// The end of attention of one token over blocks that each had a share of the keys: the warps of a block meet in shared memory,
// the blocks of a set of heads in scratch memory, where the last to arrive stores the result.
//
//   scratch  u32 [HEADS] counters, at the next multiple of 16 f32 [HEADS, SPLITS, 2]: maximum and sum, then
//            f32 [HEADS, SPLITS, DIM] values; zeroed once and left zeroed
#ifndef EDGELLM_FINISH_CUH
#define EDGELLM_FINISH_CUH

#include "attn_token/parts.cuh"
#include "attn_token/slab.cuh"
#include "dialect.cuh"
#include "ticket.cuh"
#include "warp.cuh"

static_assert(SPLITS >= 2 && SPLITS <= 256 && SPLITS % 2 == 0, "scratch holds the parts of 256 splits, each aligned");

// Every thread of the block calls this behind a barrier, with the parts of the warps in `states`, shared memory of
// [WARPS, HPB, STATE] floats at a multiple of 16. `factors` is shared memory of HPB * SPLITS floats. DIM is 64 or 128.
__device__ __forceinline__ void finish(float* states, float* factors, u32* arrived, u8* out, u8* scratch, HeadSet set, int split,
                                       int active, int heads, int dim, int bits) {
    if (active == 1) return store_alone(states, out, set, heads, dim, bits);
    const int thread = threadIdx.x, K = heads * dim, shift = dim == 64 ? 6 : 7;
    u32* const counter = (u32*)scratch + set.first;
    float* const sums = (float*)(scratch + ceil_div(heads * 4, 16) * 16) + (u64)set.first * SPLITS * 2;
    float* const values = (float*)(scratch + ceil_div(heads * 4, 16) * 16) + (u64)heads * SPLITS * 2 + (u64)set.first * SPLITS * dim;
    const int items = set.count * dim / 4;
    for (int i = thread; i < items; i += THREADS) {
        const int h = i * 4 >> shift, d = i * 4 - (h << shift);
        const Meeting all = meet(states, h);
        const float4 value = meet_values(states, all, h, d);
        const int part = h * SPLITS + split;
        *(float4*)(values + (u64)part * dim + d) = value;
        if (d == 0) *(float2*)(sums + part * 2) = make_float2(all.top, all.sum);
    }
    __syncthreads();
    if (thread == 0) *arrived = draw_ticket(counter);
    __syncthreads();
    if (*arrived != (u32)active - 1) return;

    // Where there are more threads than runs of four dimensions, several take every so many-th part and meet again.
    const int rounds = max(1, THREADS / items);
    // Eight parts from `first` on of one run.
    const auto ask = [=](float4 (&some)[8], int w, int first) {
        const int item = w % items, h = item * 4 >> shift, d = item * 4 - (h << shift);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int part = first + i * rounds;
            some[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (part < active) some[i] = load_past_l1_16(values + (u64)(h * SPLITS + part) * dim + d);
        }
    };
    // The first parts are under way before it is known what they weigh.
    float4 some[8];
    if (thread < items * rounds) ask(some, thread, thread / items);
    const int warp = thread / WARP, lane = thread % WARP;
    for (int h = warp; h < set.count; h += WARPS) {
        float2 parts[ceil_div(SPLITS, WARP)];
        float top = -F32_MAX, sum = 0.0f;
#pragma unroll
        for (int i = 0; i < ceil_div(SPLITS, WARP); ++i) {
            const int p = i * WARP + lane;
            parts[i] = make_float2(-F32_MAX, 0.0f);
            if (p < active) {
                parts[i] = load_past_l1_8(sums + (h * SPLITS + p) * 2);
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
    for (int w = thread; w < items * rounds; w += THREADS) {
        const int item = w % items, round = w / items, h = item * 4 >> shift;
        const int d = item * 4 - (h << shift);
        float* const from = values + (u64)h * SPLITS * dim + d;
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int p = round; p < active; p += 8 * rounds) {
            if (w != thread || p != round) ask(some, w, p);
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
    for (int i = thread; i - lane < items; i += THREADS) {
        const int at = i < items ? i * 4 : 0;
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int round = 0; round < rounds; ++round) add_scaled(value, *(const float4*)(states + round * items * 4 + at), 1.0f);
        store_four(out, K, set.first * dim + at, value, i < items, bits);
    }
}

#endif
