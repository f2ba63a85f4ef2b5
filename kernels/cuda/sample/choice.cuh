// What a request asks of the choice of a token, and the order and the weights of logits that follow from it.
//
// Tokens are ordered by logit, and equal logits by id: a key has the logit in an order of integers in its upper 32 bits and
// the complement of the id in its lower 24. So every cut is exact and no two keys are equal. NaN is taken for minus infinity.
//
// Weights are the probabilities times an unknown factor, as whole numbers: 2^40 for the best token. Sums of whole numbers do
// not depend on the order in which they are made, so the same logits choose the same token whatever block came first.
#ifndef EDGELLM_SAMPLE_CHOICE_CUH
#define EDGELLM_SAMPLE_CHOICE_CUH

#include "dialect.cuh"

#define ID_BITS 24
#define KEY_BITS (32 + ID_BITS)
#define ID_MASK ((1u << ID_BITS) - 1)
#define ONE (1ull << 40)
// Uniform numbers lie in a ring of so many, by position.
#define DRAWS 1024

struct Choice {
    float scale, rest;  // 1 / (temperature ln 2) as the sum of two floats
    float top_p, min_p;
    float penalty;
    u32 top_k;   // 0: all
    u32 recent;  // tokens that the penalty looks back
};

// The words that the host writes (kernels/src/op/sample.rs). A top-k that keeps all is none.
__device__ __forceinline__ Choice load_choice(const u32* params, int N) {
    Choice c;
    c.scale = __uint_as_float(params[0]);
    c.rest = __uint_as_float(params[1]);
    c.top_p = __uint_as_float(params[2]);
    c.min_p = __uint_as_float(params[3]);
    c.penalty = __uint_as_float(params[4]);
    c.top_k = params[5] < (u32)N ? params[5] : 0;
    c.recent = params[6];
    return c;
}

// The logit as a whole number of the same order. Both zeros are equal.
__device__ __forceinline__ u32 rank_of(float logit) {
    if (logit != logit) logit = -F32_INFINITY;
    const u32 bits = logit == 0.0f ? 0u : __float_as_uint(logit);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float logit_of(u32 rank) {
    return __uint_as_float(rank & 0x80000000u ? rank & 0x7fffffffu : ~rank);
}

// A recent token's logit. A positive one is divided and a negative one multiplied, so that both fall.
__device__ __forceinline__ float penalised(float logit, float penalty) {
    return logit > 0.0f ? logit / penalty : logit * penalty;
}

__device__ __forceinline__ u64 key_of(u32 rank, u32 id) {
    return (u64)rank << ID_BITS | (ID_MASK - id);
}

__device__ __forceinline__ u32 rank_in(u64 key) {
    return (u32)(key >> ID_BITS);
}

__device__ __forceinline__ u32 id_in(u64 key) {
    return ID_MASK - ((u32)key & ID_MASK);
}

// The id as put_next takes it.
__device__ __forceinline__ u64 winner_of(u32 id) {
    return 1ull << 32 | (u32)~id;
}

// Weights against the logit of this rank, which is the largest.
struct Softmax {
    u32 top;
    float max, scale, rest;

    __device__ __forceinline__ Softmax(const Choice& c, u32 top)
        : top(top), max(logit_of(top)), scale(c.scale), rest(c.rest) {}

    // e to the power of the difference over the temperature, times 2^places; its whole and its broken part are raised apart,
    // so that the error is that of the latter: about two units in the last place of a float.
    __device__ __forceinline__ float share(u32 rank, int places) const {
        const float below = logit_of(rank) - max;
        const float power = below * scale;
        // Also where the difference is minus infinity.
        if (!(power > -64.0f)) return 0.0f;
        const float whole = rintf(power);
        const float part = fmaf(below, rest, fmaf(below, scale, -whole));
        return exp2f(part) * __int_as_float((127 + places + (int)whole) << 23);
    }

    __device__ __forceinline__ u64 weight(u32 rank) const {
        // Where the maximum is infinite the difference would be NaN.
        if (rank == top) return ONE;
        return min((u64)share(rank, 40), ONE);
    }

    // Of the best of a part of the tokens, as a factor for the weights of that part.
    __device__ __forceinline__ double factor(u32 rank) const {
        return rank == top ? 1.0 : (double)share(rank, 0);
    }
};

// The least sum that a prefix must reach: `part` of `total`, rounded up, and more than nothing.
__device__ __forceinline__ u64 goal_of(float part, u64 total) {
    const double goal = (double)part * (double)total;
    u64 whole = (u64)goal;
    if ((double)whole < goal) ++whole;
    return min(max(whole, 1ull), total);
}

// The sum at which a uniform number lies among weights that add to `total`: the first token whose sum reaches it is drawn.
__device__ __forceinline__ u64 draw_of(double uniform, u64 total) {
    return min((u64)(uniform * (double)total) + 1, total);
}

// The least weight that min-p leaves.
__device__ __forceinline__ u64 least_of(const Choice& c) {
    return c.min_p > 0.0f ? goal_of(c.min_p, ONE) : 0;
}

// The first position that the penalty looks at; `at` is the last.
__device__ __forceinline__ u32 first_recent(const Choice& c, u32 at) {
    return at + 1 > c.recent ? at + 1 - c.recent : 0;
}

#endif
