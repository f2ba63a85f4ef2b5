// Parts of attention of one token: what a share of the keys gives, and how parts become one.
//
// A part is its values, each a sum of weights times values; its maximum, which the weights are relative to; and the sum of its
// weights. Exponents are of base 2. Parts meet in a fixed order, so that results repeat bit for bit.
//
//   WARPS  warps in a block      HPB  query heads of a block      SPLITS  blocks to a set of heads
//   STATES_APART  floats between the parts of two warps, HPB * STATE where the kernel does not say
#ifndef EDGELLM_PARTS_CUH
#define EDGELLM_PARTS_CUH

#include "attn_decode/heads.cuh"
#include "attn_token/slab.cuh"
#include "dialect.cuh"

#define THREADS (WARPS * WARP)
#ifndef STATES_APART
#define STATES_APART (HPB * STATE)
#endif
static_assert(WARPS * HPB * STATE * 4 <= 40 * 1024, "the warps' parts must fit in shared memory");

// The keys of a split: those from `begin` to `end`, none where `end` is not beyond `begin`.
struct Share {
    int active, begin, end;
};

__device__ __forceinline__ Share share_of(int split, int length, int least, int unit) {
    const int each = max(least, ceil_div(ceil_div(length, SPLITS), unit) * unit), begin = split * each;
    return {ceil_div(length, each), begin, min(begin + each, length)};
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
    for (int w = 0; w < WARPS; ++w) all.top = fmaxf(all.top, states[w * STATES_APART + h * STATE + MOST_DIM]);
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        const float* const of_warp = states + w * STATES_APART + h * STATE + MOST_DIM;
        all.factors[w] = exp2f(of_warp[0] - all.top);
        all.sum += of_warp[1] * all.factors[w];
    }
    return all;
}

// Four dimensions of head h from `d` on over the warps of the block.
__device__ __forceinline__ float4 meet_values(const float* states, const Meeting& all, int h, int d) {
    float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int w = 0; w < WARPS; ++w) add_scaled(value, *(const float4*)(states + w * STATES_APART + h * STATE + d), all.factors[w]);
    return value;
}

// Stores the results of a set of heads all of whose keys one block had. Every thread of the block calls this behind a barrier,
// with the parts of the warps in `states`, shared memory of [WARPS, STATES_APART] floats at a multiple of 16. DIM is 64 or
// 128.
__device__ __forceinline__ void store_alone(const float* states, u8* out, HeadSet set, int heads, int dim, int bits) {
    const int shift = dim == 64 ? 6 : 7, items = set.count * dim / 4;
    // Whole warps, as the lanes of a group meet.
    for (int i = threadIdx.x; i - (int)(threadIdx.x % WARP) < items; i += THREADS) {
        const int at = i < items ? i * 4 : 0, h = at >> shift, d = at - (h << shift);
        const Meeting all = meet(states, h);
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        add_scaled(value, meet_values(states, all, h, d), 1.0f / all.sum);
        store_four(out, heads * dim, set.first * dim + at, value, i < items, bits);
    }
}

#endif
