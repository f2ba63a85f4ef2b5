// Queries in int8 for a cache in int8: scores of keys are sums of dot products of four bytes.
//
// A query is rounded as activations are (a8/32, quantize_a8): 32 elements in a row share a scale. The dot products of a lane are
// exact, as it has 16 elements of one such group: at most 16 * 127 * 127.
//
//   WARPS  warps in a block      HPB  query heads of a block
#ifndef EDGELLM_CODES_CUH
#define EDGELLM_CODES_CUH

#include "attn_decode/heads.cuh"
#include "attn_token/cache.cuh"
#include "quantize_a8/rounding.cuh"
#include "warp.cuh"

// Sixteen int8 in a row: what a lane loads of a key or value at once. `at` is a multiple of 16.
struct Sixteen {
    uint4 words;
    __device__ __forceinline__ void load(const u8* cache, u64 at) { words = load_16(cache + at); }
    __device__ __forceinline__ void clear() { words = make_uint4(0, 0, 0, 0); }
    // Exact: behind the exponent of 2^23 the lowest byte of a float counts in ones. Four times the rate of a conversion.
    __device__ __forceinline__ void floats(float (&to)[16]) const {
        const u32 all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const u32 raised = __byte_perm(all[i / 4] ^ 0x80808080u, 0x4b000000u, 0x7440 + i % 4);
            to[i] = __uint_as_float(raised) - 8388736.0f;  // 2^23 + 128.
        }
    }
};

// The queries of a set of heads in shared memory.
struct Staged {
    uint4 codes[HPB][MOST_DIM / 16];
    float scales[HPB][MOST_DIM / 32];
};

// Rounds the queries of a set. Every thread of the block calls this, and a barrier comes before they are read.
__device__ __forceinline__ void stage_queries(Staged& staged, const float* q, HeadSet set, int dim) {
    const int pieces = dim / 16, items = set.count * pieces;
    // Whole warps, as the two lanes of a group of 32 meet.
    for (int i = threadIdx.x; i - (int)(threadIdx.x % WARP) < items; i += WARPS * WARP) {
        const int at = i < items ? i : 0, h = at / pieces, piece = at % pieces;
        const float* const from = q + (set.first + h) * dim + piece * 16;
        float v[16], largest = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const uint4 four = load_16(from + 4 * j);
            v[4 * j] = __uint_as_float(four.x);
            v[4 * j + 1] = __uint_as_float(four.y);
            v[4 * j + 2] = __uint_as_float(four.z);
            v[4 * j + 3] = __uint_as_float(four.w);
        }
#pragma unroll
        for (int j = 0; j < 16; ++j) largest = fmaxf(largest, fabsf(v[j]));
        largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, 1));
        if (i >= items) continue;
        const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
        u32 words[4] = {};
#pragma unroll
        for (int j = 0; j < 16; ++j) words[j / 4] |= (u32)(a8_code(v[j], inverse) & 255) << 8 * (j % 4);
        staged.codes[h][piece] = make_uint4(words[0], words[1], words[2], words[3]);
        if (piece % 2 == 0) staged.scales[h][piece / 2] = largest / 127.0f;
    }
}

// What a lane has of one query, for attn_decode/group.cuh.
struct CodeQuery {
    static constexpr int PER = 16;
    static constexpr bool SHORT_EXP = true;
    typedef Sixteen Piece;
    typedef const Staged* Queries;
    typedef uint4 Key;
    uint4 codes;
    float unit;

    __device__ __forceinline__ void load(Queries staged, HeadSet, int h, int, int part, float scale) {
        codes = staged->codes[h][part];
        unit = staged->scales[h][part / 2] * scale;
    }
    static __device__ __forceinline__ void share(const Piece& piece, Key& key) { key = piece.words; }
    __device__ __forceinline__ float dot(const Key& key) const {
        const int low = dot4(key.x, codes.x, dot4(key.y, codes.y, 0));
        return unit * (float)dot4(key.z, codes.z, dot4(key.w, codes.w, low));
    }
};

#endif
