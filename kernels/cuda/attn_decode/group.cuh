// Attention of one token for the query heads that share a key head: every load of keys and values serves HPB of them.
//
// A key or value of DIM f16 lies in DIM / 8 lanes, 16 bytes each, so that a warp's load is 512 contiguous bytes: two keys of
// 128 dimensions or four of 64. Each such group of lanes keeps an online softmax of its own (maximum m, sum l, values
// acc) and needs no other lane inside the loop; groups, then warps, meet once at the end. Exponents are of base 2: the
// queries carry log2(e) / sqrt(DIM). Positions from the length on are not loaded.
//
// int8 keys and values (KV is 8) have a scale for each position: that of a key goes on its score, that of a value on its weight.
//
//   WARPS  warps in a block          STEP  keys that a warp has under way      HPB  query heads of a block
#ifndef EDGELLM_GROUP_CUH
#define EDGELLM_GROUP_CUH

#include "attn_decode/heads.cuh"
#include "attn_token/cache.cuh"
#include "dialect.cuh"
#include "pdl.cuh"
#include "warp.cuh"

#if !defined(WARPS) || !defined(STEP) || !defined(HPB)
#error "a kernel of attention groups needs WARPS, STEP and HPB set by the build"
#endif
static_assert(STEP == 4 || STEP == 8 || STEP == 16, "a warp takes 4, 8 or 16 keys per turn");
static_assert(WARPS >= 1 && WARPS * WARP <= 1024, "a block has at most 1024 threads");

static_assert(WARPS * HPB * STATE * 4 <= 48 * 1024, "the warps' results must fit in 48 KiB of shared memory");

// Runs the keys from `begin` to `end` over the warps of the block and leaves each warp's results in `states`.
template <int DIM, int KV>
__device__ __forceinline__ void attend(float* states, const float* q, const u8* k, const u8* v, const float* k_scale,
                                       const float* v_scale, HeadSet set, int begin, int end, int max_len) {
    constexpr int LANES = DIM / 8, KEYS = WARP / LANES, TURNS = STEP / KEYS;
    static_assert(STEP % KEYS == 0, "the keys of a turn are shared evenly");
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, part = lane % LANES, place = lane / LANES;
    const float scale = 1.4426950408889634f / sqrtf((float)DIM);
    float query[HPB][8], acc[HPB][8], m[HPB], l[HPB];
#pragma unroll
    for (int h = 0; h < HPB; ++h) {
        // A head past the last repeats it; its result is not stored.
        const float* from = q + (set.first + min(h, set.count - 1)) * DIM + part * 8;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            query[h][i] = from[i] * scale;
            acc[h][i] = 0.0f;
        }
        m[h] = -F32_MAX;
        l[h] = 0.0f;
    }
    const u64 slots = (u64)set.kv * max_len;
    for (int first = begin + warp * STEP; first < end; first += WARPS * STEP) {
        Eight<KV> keys[TURNS], values[TURNS];
        float key_scales[TURNS], value_scales[TURNS];
#pragma unroll
        for (int t = 0; t < TURNS; ++t) {
            const int at = first + t * KEYS + place;
            key_scales[t] = value_scales[t] = 1.0f;
            if (at < end) {
                keys[t].load(k, (slots + at) * DIM + part * 8);
                values[t].load(v, (slots + at) * DIM + part * 8);
                if (KV == 8) {
                    key_scales[t] = k_scale[slots + at];
                    value_scales[t] = v_scale[slots + at];
                }
            } else {
                keys[t].clear();
                values[t].clear();
            }
        }
        float scores[HPB][TURNS];
#pragma unroll
        for (int t = 0; t < TURNS; ++t) {
            float key[8];
            keys[t].floats(key);
            const bool real = first + t * KEYS + place < end;
#pragma unroll
            for (int h = 0; h < HPB; ++h) {
                float score = 0.0f;
#pragma unroll
                for (int i = 0; i < 8; ++i) score += query[h][i] * key[i];
                score = warp_sum_over<1, LANES>(score);
                scores[h][t] = real ? score * key_scales[t] : -F32_INFINITY;
            }
        }
#pragma unroll
        for (int h = 0; h < HPB; ++h) {
            float next = m[h];
#pragma unroll
            for (int t = 0; t < TURNS; ++t) next = fmaxf(next, scores[h][t]);
            const float fade = exp2f(m[h] - next);
            m[h] = next;
            l[h] *= fade;
#pragma unroll
            for (int i = 0; i < 8; ++i) acc[h][i] *= fade;
#pragma unroll
            for (int t = 0; t < TURNS; ++t) {
                scores[h][t] = exp2f(scores[h][t] - next);
                l[h] += scores[h][t];
                if (KV == 8) scores[h][t] *= value_scales[t];
            }
        }
#pragma unroll
        for (int t = 0; t < TURNS; ++t) {
            float value[8];
            values[t].floats(value);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
#pragma unroll
                for (int h = 0; h < HPB; ++h) acc[h][i] += scores[h][t] * value[i];
            }
        }
    }
    // The groups of lanes of the warp become one. A group without keys has l = 0 and weighs nothing.
#pragma unroll
    for (int h = 0; h < HPB; ++h) {
        float top = m[h];
#pragma unroll
        for (int offset = LANES; offset < WARP; offset *= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, offset));
        const float fade = exp2f(m[h] - top);
        l[h] = warp_sum_over<LANES, WARP>(l[h] * fade);
        float* state = states + (warp * HPB + h) * STATE;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            acc[h][i] = warp_sum_over<LANES, WARP>(acc[h][i] * fade);
            if (place == 0) state[part * 8 + i] = acc[h][i];
        }
        if (lane == 0) {
            state[MOST_DIM] = top;
            state[MOST_DIM + 1] = l[h];
        }
    }
}

// The same over a cache in f16.
template <int DIM>
__device__ __forceinline__ void attend(float* states, const float* q, const u16* k, const u16* v, HeadSet set, int begin,
                                       int end, int max_len) {
    attend<DIM, 16>(states, q, (const u8*)k, (const u8*)v, nullptr, nullptr, set, begin, end, max_len);
}

// One dimension of one head over several parts that lie `stride` floats apart: value, maximum and sum. The parts' own
// sums go in once, in `l`; their values are already sums of weighted values and are not weighted by them again.
struct Merged {
    float value, m, l;
};

__device__ __forceinline__ Merged merge(const volatile float* values, const volatile float* maxima, int stride, int parts) {
    Merged out = {0.0f, -F32_MAX, 0.0f};
    for (int p = 0; p < parts; ++p) out.m = fmaxf(out.m, maxima[(u64)p * stride]);
    for (int p = 0; p < parts; ++p) {
        const float fade = exp2f(maxima[(u64)p * stride] - out.m);
        out.value += values[(u64)p * stride] * fade;
        out.l += maxima[(u64)p * stride + 1] * fade;
    }
    return out;
}

#endif
