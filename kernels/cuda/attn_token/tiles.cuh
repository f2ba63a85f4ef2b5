// The keys of a block's share against up to eight query heads on tensor cores, tile by tile of 16 keys.
//
// The heads are the columns of m16n8k16: scores are K Q^T, sixteen keys by eight heads, and results V^T P^T, sixteen dimensions
// by eight heads. Sums over dimensions and over keys may run in any order, and so may the rows of a result: each lane loads 16
// bytes of a key or value, and which element stands where in a fragment follows from that. Nothing goes through shared memory
// and few instructions lie between a load and the next. Queries, keys and weights are f16, sums f32. Codes of int8 become f16,
// which is exact; the scale of a key goes on its scores, that of a value on its weights.
//
//   WARPS  warps in a block     TILES  tiles that a warp has under way in registers, where `attend` is wanted
//   MIN_KEYS  the least share of a block
//   TURNS_AHEAD  turns of a warp whose keys and values are on their way to L2 behind those that it holds, where `attend` is
//       wanted: memory would idle while a warp waits for the kernel ahead, and what it holds is little where it has many keys
#ifndef EDGELLM_TILES_CUH
#define EDGELLM_TILES_CUH

#define HPB 8  // The columns of a matrix product.
#include "attn_decode/heads.cuh"
#include "attn_token/cache.cuh"
#include "attn_token/parts.cuh"
#include "half.cuh"
#include "matrix_moves.cuh"
#include "mma.cuh"
#include "pdl.cuh"
#include "warp.cuh"

#ifdef TILES
#define STEP (16 * TILES)
#if !defined(TURNS_AHEAD)
#error "attn_token/tiles: `attend` needs TURNS_AHEAD"
#endif
#endif
// f16 weights below 2^-14 lose digits, so that scales of values are taken times this, and results back.
#define SCALE_UNIT 128.0f

__device__ __forceinline__ u32 word_of(uint4 v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Adds weighted values. The weights are those of Tile::score; row g of a result is dimension 8 (8 i + g) + 2 j, row g + 8 the
// one behind it. `values(j, i)` are the eight elements from 8 (8 i + g) of values 2t, 2t + 1, 2t + 8 and 2t + 9 in f16.
template <int DIM, class Values>
__device__ __forceinline__ void add_values(float (&acc)[DIM / 16][4], const float (&weights)[4], Values values) {
    const u32 p[2] = {turn_matrix(pack_halves(weights[0], weights[1])), turn_matrix(pack_halves(weights[2], weights[3]))};
#pragma unroll
    for (int i = 0; i < DIM / 64; ++i) {
        uint4 of[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) of[j] = values(j, i);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 w[4] = {word_of(of[0], j), word_of(of[1], j), word_of(of[2], j), word_of(of[3], j)};
            const u32 a[4] = {__byte_perm(w[0], w[1], 0x5410), __byte_perm(w[0], w[1], 0x7632),
                              __byte_perm(w[2], w[3], 0x5410), __byte_perm(w[2], w[3], 0x7632)};
            mma_f16_k16(acc[i * 4 + j], a, p);
        }
    }
}

// Sixteen keys and their values in fragments of a lane of group g and place t: of keys g and g + 8 the eight elements from
// 8 (4 i + t), of the values of keys 2t, 2t + 1, 2t + 8 and 2t + 9 those from 8 (8 i + g).
template <int DIM, int KV>
struct Tile {
    Eight<KV> keys[2][DIM / 32], values[4][DIM / 64];
    float key_scales[2], value_scales[2];

    // Keys from `first` on, and all their scales; those from `end` on are zero and not loaded.
    __device__ __forceinline__ void load_keys(const u8* k, const float* k_scale, const float* v_scale, u64 slots, int first, int end) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int key = first + g + 8 * half;
            if (KV == 8) key_scales[half] = value_scales[half] = 0.0f;
            if (key < end) {
#pragma unroll
                for (int i = 0; i < DIM / 32; ++i) keys[half][i].load(k, (slots + key) * DIM + 8 * (4 * i + t));
                if (KV == 8) {
                    key_scales[half] = load_scale(k_scale + slots + key);
                    value_scales[half] = load_scale(v_scale + slots + key);
                }
            } else {
#pragma unroll
                for (int i = 0; i < DIM / 32; ++i) keys[half][i].clear();
            }
        }
    }

    __device__ __forceinline__ void load_values(const u8* v, u64 slots, int first, int end) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int key = first + 2 * t + j % 2 + 8 * (j / 2);
#pragma unroll
            for (int i = 0; i < DIM / 64; ++i) {
                if (key < end) values[j][i].load(v, (slots + key) * DIM + 8 * (8 * i + g));
                else values[j][i].clear();
            }
        }
    }

    // Keys, or values, of f16 from shared memory, rows `apart` bytes apart.
    __device__ __forceinline__ void read_keys(const u8* k, int apart) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int i = 0; i < DIM / 32; ++i) {
                keys[half][i].words = *(const uint4*)(k + (g + 8 * half) * apart + 16 * (4 * i + t));
            }
        }
    }

    __device__ __forceinline__ void read_values(const u8* v, int apart) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int i = 0; i < DIM / 64; ++i) {
                values[j][i].words = *(const uint4*)(v + (2 * t + j % 2 + 8 * (j / 2)) * apart + 16 * (8 * i + g));
            }
        }
    }

    // The row of `key` of this tile, where it is one of it. The others stay as they are.
    __device__ __forceinline__ void load_key_row(const u8* k, const float* k_scale, const float* v_scale, u64 slots, int first,
                                                 int key) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (first + g + 8 * half != key) continue;
#pragma unroll
            for (int i = 0; i < DIM / 32; ++i) keys[half][i].load(k, (slots + key) * DIM + 8 * (4 * i + t));
            if (KV == 8) {
                key_scales[half] = load_scale(k_scale + slots + key);
                value_scales[half] = load_scale(v_scale + slots + key);
            }
        }
    }

    __device__ __forceinline__ void load_value_row(const u8* v, u64 slots, int first, int key) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (first + 2 * t + j % 2 + 8 * (j / 2) != key) continue;
#pragma unroll
            for (int i = 0; i < DIM / 64; ++i) values[j][i].load(v, (slots + key) * DIM + 8 * (8 * i + g));
        }
    }

    // Scores of keys g (0, 1) and g + 8 (2, 3) with heads 2t and 2t + 1. `queries.at(i)` are the words of two products.
    template <class Q>
    __device__ __forceinline__ void score(float (&scores)[4], const Q& queries) const {
        // Two sums side by side, as each product waits for the one before it.
        float others[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        scores[0] = scores[1] = scores[2] = scores[3] = 0.0f;
#pragma unroll
        for (int i = 0; i < DIM / 32; ++i) {
            const uint4 a = keys[0][i].halves(), b = keys[1][i].halves();
            const u32 first[4] = {a.x, b.x, a.y, b.y}, second[4] = {a.z, b.z, a.w, b.w};
            const uint4 query = queries.at(i);
            const u32 with_first[2] = {query.x, query.y}, with_second[2] = {query.z, query.w};
            mma_f16_k16(scores, first, with_first);
            mma_f16_k16(others, second, with_second);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) scores[j] += others[j];
    }

    __device__ __forceinline__ void add(float (&acc)[DIM / 16][4], const float (&weights)[4]) const {
        add_values<DIM>(acc, weights, [&](int j, int i) { return values[j][i].halves(); });
    }
};

// Asks for `rows` rows of keys or values from `first` on. They may be asked for before they are written: L2 is where they are
// written to.
template <int DIM, int KV>
__device__ __forceinline__ void ask_for_rows(const u8* cache, u64 slots, int first, int rows) {
    constexpr int ROW = DIM * KV / 8;
    bring_to_l2(cache + (slots + first) * ROW, rows * ROW);
}

#ifdef TILES
// Asks for the keys and values of a turn that begins with key `first`.
template <int DIM, int KV>
__device__ __forceinline__ void ask_ahead(const u8* k, const u8* v, u64 slots, int first, int end) {
    const int rows = min(STEP, end - first);
    if (rows <= 0 || threadIdx.x % WARP != 0) return;
    ask_for_rows<DIM, KV>(k, slots, first, rows);
    ask_for_rows<DIM, KV>(v, slots, first, rows);
}
#endif

// The largest over the lanes of a column: those that differ in their group.
__device__ __forceinline__ float column_max(float v) {
#pragma unroll
    for (int offset = 4; offset < WARP; offset *= 2) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, offset));
    return v;
}

// The queries of a set of heads as columns of products; heads that are not of the set are zero.
template <int DIM>
struct Queries {
    u32 words[DIM / 16][2];

    __device__ __forceinline__ uint4 at(int i) const {
        return make_uint4(words[2 * i][0], words[2 * i][1], words[2 * i + 1][0], words[2 * i + 1][1]);
    }

    __device__ __forceinline__ void load(const float* q, HeadSet set) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
        uint4 floats[DIM / 32][2];
#pragma unroll
        for (int i = 0; i < DIM / 32; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                floats[i][half] = make_uint4(0, 0, 0, 0);
                if (g < set.count) floats[i][half] = load_16(q + (set.first + g) * DIM + 8 * (4 * i + t) + 4 * half);
            }
        }
#pragma unroll
        for (int i = 0; i < DIM / 32; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint4 v = floats[i][half];
                words[2 * i + half][0] = pack_halves_saturated(__uint_as_float(v.x), __uint_as_float(v.y));
                words[2 * i + half][1] = pack_halves_saturated(__uint_as_float(v.z), __uint_as_float(v.w));
            }
        }
    }
};

// What a warp has of heads 2t and 2t + 1: weighted values, maxima, and sums of weights, of which each lane has its own keys'.
template <int DIM, int KV>
struct Sums {
    float acc[DIM / 16][4] = {}, m[2] = {-F32_MAX, -F32_MAX}, l[2] = {0.0f, 0.0f};

    // What scores are multiplied with, as exponents are of base 2.
    static __device__ __forceinline__ float unit() { return 1.4426950408889634f / sqrtf((float)DIM); }

    // Turns the scores of some tiles into weights of their values, for Tile::add, and fades what there is to their maximum.
    template <int COUNT>
    __device__ __forceinline__ void weigh(float (&scores)[COUNT][4], const float (&value_scales)[COUNT][2]) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float top = -F32_INFINITY;
#pragma unroll
            for (int i = 0; i < COUNT; ++i) top = fmaxf(top, fmaxf(scores[i][h], scores[i][h + 2]));
            top = fmaxf(m[h], column_max(top));
            const float fade = fast_exp2(m[h] - top);
            m[h] = top;
            l[h] *= fade;
#pragma unroll
            for (int i = 0; i < COUNT; ++i) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float& score = scores[i][h + 2 * half];
                    score = fast_exp2(score - top);
                    l[h] += score;
                    if (KV == 8) score *= value_scales[i][half];
                }
            }
#pragma unroll
            for (int i = 0; i < DIM / 16; ++i) {
                acc[i][h] *= fade;
                acc[i][h + 2] *= fade;
            }
        }
    }

    // Leaves it in the warp's state in shared memory. A warp without keys has l = 0 and weighs nothing.
    __device__ __forceinline__ void store(float* states) {
        const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            l[h] = warp_sum_over<4, WARP>(l[h]);
            float* const state = states + warp * STATES_APART + (2 * t + h) * STATE;
            const float back = KV == 8 ? 1.0f / SCALE_UNIT : 1.0f;
#pragma unroll
            for (int i = 0; i < DIM / 64; ++i) {
#pragma unroll
                for (int j = 0; j < 4; j += 2) {
                    const float(&a)[4] = acc[i * 4 + j], (&b)[4] = acc[i * 4 + j + 1];
                    *(float4*)(state + 8 * (8 * i + g) + 2 * j) =
                        make_float4(a[h] * back, a[h + 2] * back, b[h] * back, b[h + 2] * back);
                }
            }
            if (g == 0) {
                state[MOST_DIM] = m[h];
                state[MOST_DIM + 1] = l[h];
            }
        }
    }
};

#ifdef TILES
// Runs the share of this block over its warps, and leaves each warp's part in `states`. Answers how many splits have a share;
// none of the block's threads has done anything but wait where this one has none.
//
// The kernel waits in here: the length and all rows but the newest are there since before this token, so that every warp has
// its first tiles under way while the kernel ahead still runs.
template <int DIM, int KV>
__device__ __forceinline__ Share attend(float* states, const float* q, const u8* k, const u8* v, const float* k_scale,
                                        const float* v_scale, const int* len, HeadSet set, int split, int max_len) {
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
    const u64 slots = (u64)set.kv * max_len;
    const int length = *(const volatile int*)len, newest = length - 1;
    const Share share = share_of(split, length, MIN_KEYS, STEP);
    int first = share.begin + warp * STEP;
    Tile<DIM, KV> tiles[TILES];
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
        tiles[i].load_keys(k, k_scale, v_scale, slots, first + 16 * i, min(share.end, newest));
        tiles[i].load_values(v, slots, first + 16 * i, min(share.end, newest));
    }
#pragma unroll 1
    for (int turn = 1; turn <= TURNS_AHEAD; ++turn) ask_ahead<DIM, KV>(k, v, slots, first + turn * WARPS * STEP, share.end);
    // Always so; a basic block of its own keeps loads from being moved behind the wait.
    if (length > 0) pdl_wait();
    if (split >= share.active) return share;
    // Before the queries: it goes where earlier loads have been, and would wait for these too.
    if (first <= newest && newest < min(first + STEP, share.end)) {
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            tiles[i].load_key_row(k, k_scale, v_scale, slots, first + 16 * i, newest);
            tiles[i].load_value_row(v, slots, first + 16 * i, newest);
        }
    }
    Queries<DIM> queries;
    queries.load(q, set);

    const float unit = Sums<DIM, KV>::unit();
    Sums<DIM, KV> sums;
    for (; first < share.end; first += WARPS * STEP) {
        const int next = first + WARPS * STEP;
        if (TURNS_AHEAD > 0) ask_ahead<DIM, KV>(k, v, slots, next + TURNS_AHEAD * WARPS * STEP, share.end);
        float scores[TILES][4];
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            tiles[i].score(scores[i], queries);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const bool real = first + 16 * i + g + 8 * (j / 2) < share.end;
                scores[i][j] = real ? scores[i][j] * (KV == 8 ? unit * tiles[i].key_scales[j / 2] : unit) : -F32_INFINITY;
            }
        }
        float value_scales[TILES][2];
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            value_scales[i][0] = tiles[i].value_scales[0] * SCALE_UNIT;
            value_scales[i][1] = tiles[i].value_scales[1] * SCALE_UNIT;
            if (next < share.end) tiles[i].load_keys(k, k_scale, v_scale, slots, next + 16 * i, share.end);
        }
        sums.weigh(scores, value_scales);
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            tiles[i].add(sums.acc, scores[i]);
            if (next < share.end) tiles[i].load_values(v, slots, next + 16 * i, share.end);
        }
    }
    sums.store(states);
    return share;
}

// The same for the sizes and the form of the cache at hand.
__device__ __forceinline__ Share attend_any(float* states, const float* q, const u8* k, const u8* v, const float* k_scale,
                                            const float* v_scale, const int* len, HeadSet set, int split, int max_len, int dim,
                                            int kv) {
    if (kv == 16) {
        if (dim == 128) return attend<128, 16>(states, q, k, v, k_scale, v_scale, len, set, split, max_len);
        return attend<64, 16>(states, q, k, v, k_scale, v_scale, len, set, split, max_len);
    }
    if (dim == 128) return attend<128, 8>(states, q, k, v, k_scale, v_scale, len, set, split, max_len);
    return attend<64, 8>(states, q, k, v, k_scale, v_scale, len, set, split, max_len);
}

#endif

#endif
