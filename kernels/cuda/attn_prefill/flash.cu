// attn_prefill / flash: causal attention of M tokens on tensor cores, an online softmax over tiles of keys.
//
//   q  f32 [M, HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  f16 [M, HEADS, DIM]     pos  u32 [1]: token i stands at position pos + i and sees keys 0 to pos + i
//
// A warp holds 16 tokens of a query head in registers: queries as the A of m16n8k16, results as its D. Keys and values come in
// tiles through shared memory, the next one under way while this one is used; in a row of a tile 16 bytes go where their
// number exclusive-or the row's says, so that eight rows of a column lie in different banks. Scores become weights in place,
// as a D of two tiles is an A. Queries, keys and weights are f16, sums f32. Codes of int8 become f16 on their way to shared
// memory, which is exact; the scale of a key goes on its scores, that of a value on its weights. Blocks of late tokens, which see the most keys, come first. DIM is 64 or 128.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_prefill.toml)
//   WARPS  warps in a block, of 16 tokens each
//   KEYS   keys of a tile
#if !defined(WARPS) || !defined(KEYS)
#error "attn_prefill/flash: every tunable must be set by the build"
#endif
#include "async_copy.cuh"
#include "attn_token/cache.cuh"
#include "half.cuh"
#include "matrix_moves.cuh"
#include "mma.cuh"
#include "pdl.cuh"
#include "warp.cuh"

#define THREADS (WARPS * WARP)
static_assert(WARPS >= 1 && WARPS <= 16, "a block has at most 512 threads here");
static_assert(KEYS % 16 == 0, "a tile of weights is an operand of 16 keys");

// f16 weights below 2^-14 lose digits, so that scales of values are taken times this, and results back.
#define SCALE_UNIT 128.0f

// Where the 16 bytes of number `chunk` of a row of a tile lie.
template <int DIM>
__device__ __forceinline__ u8* in_tile(u8* tile, int row, int chunk) {
    return tile + row * (DIM * 2) + ((chunk ^ (row & 7)) * 16);
}

// A tile of keys and one of values, and behind them the scales of both.
template <int DIM>
struct Stage {
    static constexpr int TILE = KEYS * DIM * 2, BYTES = 2 * TILE + 8 * KEYS;
    u8* keys;
    __device__ __forceinline__ Stage(u8* shared, int number) : keys(shared + number * BYTES) {}
    __device__ __forceinline__ u8* values() const { return keys + TILE; }
    __device__ __forceinline__ float* key_scales() const { return (float*)(keys + 2 * TILE); }
    __device__ __forceinline__ float* value_scales() const { return key_scales() + KEYS; }
};

// Keys or values from `first` on go to a tile; rows from `end` on are zero, as no weight of zero makes NaN harmless.
template <int DIM, int KV>
__device__ __forceinline__ void fetch(u8* tile, float* tile_scales, const u8* cache, const float* scales, u64 slots, int first, int end) {
    constexpr int CHUNKS = DIM / 8;
    for (int i = threadIdx.x; i < KEYS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        u8* const to = in_tile<DIM>(tile, row, chunk);
        const u64 slot = slots + first + row;
        const bool real = first + row < end;
        if (KV == 16 && real) {
            copy_async_16(to, cache + (slot * DIM + 8 * chunk) * 2);
        } else {
            Eight<KV> codes;
            codes.clear();
            if (real) codes.load(cache, slot * DIM + 8 * chunk);
            *(uint4*)to = codes.halves();
        }
        if (KV == 8 && chunk == 0) tile_scales[row] = real ? scales[slot] : 0.0f;
    }
}

template <int DIM, int KV>
__device__ __forceinline__ void attend(u8* shared, const float* q, const u8* k, const u8* v, const float* k_scale,
                                       const float* v_scale, u16* out, int position, int heads, int kv_heads, int m, int max_len) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const int head = blockIdx.x, first_token = (gridDim.y - 1 - blockIdx.y) * (16 * WARPS);
    const u64 slots = (u64)(head / (heads / kv_heads)) * max_len;
    // Keys that any token of the block sees.
    const int end = position + min(first_token + 16 * WARPS, m), tiles = ceil_div(end, KEYS);
    const auto fetch_tile = [&](int tile) {
        const Stage<DIM> to(shared, tile % 2);
        fetch<DIM, KV>(to.keys, to.key_scales(), k, k_scale, slots, tile * KEYS, end);
        fetch<DIM, KV>(to.values(), to.value_scales(), v, v_scale, slots, tile * KEYS, end);
        copy_async_commit();
    };
    fetch_tile(0);

    // Tokens g and g + 8 of the warp; what lies past the last is zero and is not stored.
    const int tokens[2] = {first_token + 16 * warp + g, first_token + 16 * warp + g + 8};
    u32 query[DIM / 16][4];
#pragma unroll
    for (int i = 0; i < DIM / 16; ++i) {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            const int token = tokens[w % 2];
            uint2 pair = make_uint2(0, 0);
            if (token < m) pair = load_8(q + ((u64)token * heads + head) * DIM + 16 * i + 8 * (w / 2) + 2 * t);
            query[i][w] = pack_halves_saturated(__uint_as_float(pair.x), __uint_as_float(pair.y));
        }
    }

    // Scores are compared as they are; exponents, of base 2, are theirs times this.
    const float unit = 1.4426950408889634f / sqrtf((float)DIM);
    float acc[DIM / 8][4] = {}, top[2] = {-F32_MAX, -F32_MAX}, sum[2] = {0.0f, 0.0f};
    for (int tile = 0; tile < tiles; ++tile) {
        const Stage<DIM> stage(shared, tile % 2);
        copy_async_wait<0>();
        // The tile is there for all, and no warp works on the one before any more.
        __syncthreads();
        if (tile + 1 < tiles) fetch_tile(tile + 1);
        const int first = tile * KEYS;
        // A warp whose tokens all stand before the tile has nothing to see in it.
        if (first > position + first_token + 16 * warp + 15) continue;

        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (int i = 0; i < DIM / 16; ++i) {
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                u32 b[4];
                load_matrices(b, in_tile<DIM>(stage.keys, 16 * n + lane / 16 * 8 + lane % 8, 2 * i + lane / 8 % 2));
                const u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
                mma_f16_k16(scores[2 * n], query[i], low);
                mma_f16_k16(scores[2 * n + 1], query[i], high);
            }
        }
        if (KV == 8) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
                const float2 scale = *(const float2*)(stage.key_scales() + 8 * n + 2 * t);
#pragma unroll
                for (int j = 0; j < 4; ++j) scores[n][j] *= j % 2 == 0 ? scale.x : scale.y;
            }
        }
        if (first + KEYS - 1 > position + first_token + 16 * warp) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (first + 8 * n + 2 * t + j % 2 > position + tokens[j / 2]) scores[n][j] = -F32_INFINITY;
                }
            }
        }
        float fade[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float next = top[r];
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) next = fmaxf(next, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
            next = fmaxf(next, __shfl_xor_sync(FULL_WARP, next, 1));
            next = fmaxf(next, __shfl_xor_sync(FULL_WARP, next, 2));
            const float shift = next * unit;
            fade[r] = fast_exp2(fmaf(top[r], unit, -shift));
            top[r] = next;
            sum[r] *= fade[r];
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (int j = 2 * r; j < 2 * r + 2; ++j) {
                    scores[n][j] = fast_exp2(fmaf(scores[n][j], unit, -shift));
                    sum[r] += scores[n][j];
                }
            }
        }
        if (KV == 8) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
                const float2 scale = *(const float2*)(stage.value_scales() + 8 * n + 2 * t);
#pragma unroll
                for (int j = 0; j < 4; ++j) scores[n][j] *= (j % 2 == 0 ? scale.x : scale.y) * SCALE_UNIT;
            }
        }
#pragma unroll
        for (int i = 0; i < DIM / 8; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) acc[i][j] *= fade[j / 2];
        }
#pragma unroll
        for (int n = 0; n < KEYS / 16; ++n) {
            const u32 weights[4] = {pack_halves(scores[2 * n][0], scores[2 * n][1]), pack_halves(scores[2 * n][2], scores[2 * n][3]),
                                    pack_halves(scores[2 * n + 1][0], scores[2 * n + 1][1]),
                                    pack_halves(scores[2 * n + 1][2], scores[2 * n + 1][3])};
#pragma unroll
            for (int i = 0; i < DIM / 16; ++i) {
                u32 b[4];
                load_matrices_turned(b, in_tile<DIM>(stage.values(), 16 * n + lane / 8 % 2 * 8 + lane % 8, 2 * i + lane / 16));
                const u32 low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
                mma_f16_k16(acc[2 * i], weights, low);
                mma_f16_k16(acc[2 * i + 1], weights, high);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float inverse = 1.0f / (warp_sum_over<1, 4>(sum[r]) * (KV == 8 ? SCALE_UNIT : 1.0f));
        if (tokens[r] < m) {
            u16* const to = out + ((u64)tokens[r] * heads + head) * DIM + 2 * t;
#pragma unroll
            for (int i = 0; i < DIM / 8; ++i) {
                *(u32*)(to + 8 * i) = pack_halves_saturated(acc[i][2 * r] * inverse, acc[i][2 * r + 1] * inverse);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
attn_prefill_flash(const float* q,          // [M, HEADS, DIM]
                   const u8* k,             // see above
                   const u8* v,             // see above
                   const float* k_scale,    // [KV_HEADS, MAX_LEN], or null where KV is 16
                   const float* v_scale,    // the same
                   u16* out,                // [M, HEADS, DIM]
                   const u32* pos,          // [1]
                   int HEADS, int KV_HEADS, int DIM, int M, int MAX_LEN, int KV) {
    DYNAMIC_SHARED(shared);
    pdl_launch();
    pdl_wait();
    const int position = (int)*(const volatile u32*)pos;
    if (KV == 16) {
        if (DIM == 128) attend<128, 16>(shared, q, k, v, k_scale, v_scale, out, position, HEADS, KV_HEADS, M, MAX_LEN);
        else attend<64, 16>(shared, q, k, v, k_scale, v_scale, out, position, HEADS, KV_HEADS, M, MAX_LEN);
    } else {
        if (DIM == 128) attend<128, 8>(shared, q, k, v, k_scale, v_scale, out, position, HEADS, KV_HEADS, M, MAX_LEN);
        else attend<64, 8>(shared, q, k, v, k_scale, v_scale, out, position, HEADS, KV_HEADS, M, MAX_LEN);
    }
}
