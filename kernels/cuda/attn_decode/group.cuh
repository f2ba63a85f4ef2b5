// Attention of one token for the query heads that share a key head: every load of keys and values serves HPB of them.
//
// A key or value of DIM elements lies in DIM / PER lanes, what one load brings each, so that a warp's load of f16 is 512
// contiguous bytes: two keys of 128 dimensions or four of 64. Each such group of lanes keeps an online softmax of its own
// (maximum m, sum l, values acc) and needs no other lane inside the loop; groups, then warps, meet once at the end. Exponents
// are of base 2: the queries carry log2(e) / sqrt(DIM). Positions from the length on are not loaded.
//
// int8 keys and values (KV is 8) have a scale for each position: that of a key goes on its score, that of a value on its weight.
//
// Where a key lies, its place says: `enter` is called with the first key of every turn and that of the warp's next turn, before
// `slot` is asked for a key of the turn.
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
static_assert(STEP == 4 || STEP == 8 || STEP == 16 || STEP == 32, "a warp takes 4, 8, 16 or 32 keys per turn");
static_assert(WARPS >= 1 && WARPS * WARP <= 1024, "a block has at most 1024 threads");

static_assert(WARPS * HPB * STATE * 4 <= 48 * 1024, "the warps' results must fit in 48 KiB of shared memory");

// How far, in powers of two, a sum of weights may be from one where the maximum was given and not found (GIVEN below).
#define GIVEN_REACH 1152921504606846976.0f  // 2^60

// What a lane has of one query: eight floats, for keys and values in either form.
template <int KV>
struct FloatQuery {
    static constexpr int PER = 8;             // Elements of a load.
    static constexpr bool SHORT_EXP = false;  // Whether weights below 2^-126 may be zero.
    typedef Eight<KV> Piece;                  // A load of keys or values.
    typedef const float* Queries;             // Those of all heads, [HEADS, DIM].
    struct Key {                              // A piece of a key as the heads share it.
        float v[8];
    };
    float v[8];

    // Head h of the set, and the lane's place in it. What is left is to be multiplied with `scale`.
    __device__ __forceinline__ void load(Queries q, HeadSet set, int h, int dim, int part, float scale) {
        const float* from = q + (set.first + h) * dim + part * 8;
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = from[i] * scale;
    }
    static __device__ __forceinline__ void share(const Piece& piece, Key& key) { piece.floats(key.v); }
    __device__ __forceinline__ float dot(const Key& key) const {
        float score = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) score += v[i] * key.v[i];
        return score;
    }
};

// The keys of a head that lie one behind the other.
struct InOrder {
    const u64 first;
    __device__ __forceinline__ void enter(int, int, int) {}
    __device__ __forceinline__ u64 slot(int key) const { return first + key; }
};

// Runs the keys from `begin` to `end` over the warps of the block and leaves each warp's results in `states`.
//
// GIVEN: the maximum is given as 2^0 instead of found, so that nothing fades inside the loop. Answers whether that was near
// enough for this warp's keys: a sum of weights out of GIVEN_REACH may have overflowed, or lost digits below it, and its warp
// must run again without. The same in all lanes of a warp; always true without GIVEN, and of a warp without keys.
template <int DIM, int KV, class Query, bool GIVEN, class Place>
__device__ __forceinline__ bool attend_at(float* states, typename Query::Queries q, const u8* k, const u8* v, const float* k_scale,
                                          const float* v_scale, HeadSet set, int begin, int end, Place keys_at) {
    constexpr int PER = Query::PER, LANES = DIM / PER, KEYS = WARP / LANES, TURNS = STEP / KEYS;
    static_assert(STEP % KEYS == 0, "the keys of a turn are shared evenly");
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, part = lane % LANES, place = lane / LANES;
    const float scale = 1.4426950408889634f / sqrtf((float)DIM);
    Query query[HPB];
    float acc[HPB][PER] = {}, m[HPB], l[HPB];
#pragma unroll
    for (int h = 0; h < HPB; ++h) {
        // A head past the last repeats it; its result is not stored.
        query[h].load(q, set, min(h, set.count - 1), DIM, part, scale);
        m[h] = GIVEN ? 0.0f : -F32_MAX;
        l[h] = 0.0f;
    }
    for (int first = begin + warp * STEP; first < end; first += WARPS * STEP) {
        keys_at.enter(first, first + WARPS * STEP, end);
        typename Query::Piece keys[TURNS], values[TURNS];
        float key_scales[TURNS], value_scales[TURNS];
#pragma unroll
        for (int t = 0; t < TURNS; ++t) {
            const int at = first + t * KEYS + place;
            key_scales[t] = value_scales[t] = 1.0f;
            if (at < end) {
                keys[t].load(k, keys_at.slot(at) * DIM + part * PER);
                values[t].load(v, keys_at.slot(at) * DIM + part * PER);
                if (KV == 8) {
                    key_scales[t] = k_scale[keys_at.slot(at)];
                    value_scales[t] = v_scale[keys_at.slot(at)];
                }
            } else {
                keys[t].clear();
                values[t].clear();
            }
        }
        float scores[HPB][TURNS];
#pragma unroll
        for (int t = 0; t < TURNS; ++t) {
            typename Query::Key key;
            Query::share(keys[t], key);
            const bool real = first + t * KEYS + place < end;
#pragma unroll
            for (int h = 0; h < HPB; ++h) {
                const float score = warp_sum_over<1, LANES>(query[h].dot(key));
                scores[h][t] = real ? score * key_scales[t] : -F32_INFINITY;
            }
        }
#pragma unroll
        for (int h = 0; h < HPB; ++h) {
            float next = m[h];
            if (!GIVEN) {
#pragma unroll
                for (int t = 0; t < TURNS; ++t) next = fmaxf(next, scores[h][t]);
                const float fade = exp2f(m[h] - next);
                m[h] = next;
                l[h] *= fade;
#pragma unroll
                for (int i = 0; i < PER; ++i) acc[h][i] *= fade;
            }
#pragma unroll
            for (int t = 0; t < TURNS; ++t) {
                const float exponent = scores[h][t] - next;
                scores[h][t] = GIVEN || Query::SHORT_EXP ? fast_exp2(exponent) : exp2f(exponent);
                l[h] += scores[h][t];
                if (KV == 8) scores[h][t] *= value_scales[t];
            }
        }
#pragma unroll
        for (int t = 0; t < TURNS; ++t) {
            float value[PER];
            values[t].floats(value);
#pragma unroll
            for (int i = 0; i < PER; ++i) {
#pragma unroll
                for (int h = 0; h < HPB; ++h) acc[h][i] += scores[h][t] * value[i];
            }
        }
    }
    // The groups of lanes of the warp become one. A group without keys has l = 0 and weighs nothing; nor may the maximum of a
    // warp without keys stand out.
    const bool none = begin + warp * STEP >= end;
    bool near = true;
#pragma unroll
    for (int h = 0; h < HPB; ++h) {
        float top = m[h], fade = 1.0f;
        if (!GIVEN) {
#pragma unroll
            for (int offset = LANES; offset < WARP; offset *= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, offset));
            fade = exp2f(m[h] - top);
        }
        l[h] = warp_sum_over<LANES, WARP>(l[h] * fade);
        if (GIVEN) {
            near = near && (none || (l[h] >= 1.0f / GIVEN_REACH && l[h] <= GIVEN_REACH));
            top = none ? -F32_MAX : 0.0f;
        }
        float* state = states + (warp * HPB + h) * STATE;
#pragma unroll
        for (int i = 0; i < PER; ++i) {
            acc[h][i] = warp_sum_over<LANES, WARP>(acc[h][i] * fade);
            if (place == 0) state[part * PER + i] = acc[h][i];
        }
        if (lane == 0) {
            state[MOST_DIM] = top;
            state[MOST_DIM + 1] = l[h];
        }
    }
    return near;
}

// The same over a cache [KV_HEADS, max_len, DIM].
template <int DIM, int KV, class Query = FloatQuery<KV>, bool GIVEN = false>
__device__ __forceinline__ bool attend(float* states, typename Query::Queries q, const u8* k, const u8* v, const float* k_scale,
                                       const float* v_scale, HeadSet set, int begin, int end, int max_len) {
    const InOrder place = {(u64)set.kv * max_len};
    return attend_at<DIM, KV, Query, GIVEN>(states, q, k, v, k_scale, v_scale, set, begin, end, place);
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
