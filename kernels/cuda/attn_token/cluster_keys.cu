// attn_token / cluster_keys: attention of one token on tensor cores, keys split over the blocks of a cluster; a warp holds
// the keys of several tiles before it holds a value.
//
//   q  f32 [HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16, or int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// As attn_token/cluster, in another order. There a warp takes its tiles in turns, keys and values together, and waits for memory
// in each turn behind the first. Here it asks for the keys of HELD tiles ahead of the wait, scores them all, and asks for the
// values of a tile into the registers that its keys leave: one wait for memory in place of HELD. Queries lie in shared memory as
// the products want them, which leaves their registers for keys. On an H200 a token of Llama-3.1-8B is no faster for it behind
// 2,048 others, nor behind 256 with keys in f16; with keys in int8 it takes 0.8 % less there: the turns' waits are not what depth
// costs.
//
// KV_BITS (a constant of the space)  16 or 8, bits of an element of the cache
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   HELD      tiles of 16 keys that a warp holds
//   AHEAD     what comes to L2 ahead of the wait: 1 the values of the tiles held, 2 keys and values of the next as many, too
//   SPLITS    blocks of a cluster, at most 16; above 8 a device need not have room for one
//   MIN_KEYS  the least share of a block
#if !defined(WARPS) || !defined(HELD) || !defined(AHEAD) || !defined(SPLITS) || !defined(MIN_KEYS) || !defined(KV_BITS)
#error "attn_token/cluster_keys: every tunable must be set by the build"
#endif
#include "attn_token/tiles.cuh"  // Says how many heads a block has.

#include "attn_token/exchange.cuh"
#include "attn_token/shared_queries.cuh"
#include "cluster.cuh"
#include "pdl.cuh"

constexpr int APART = WARPS * 16;  // Keys between two tiles of a warp.

// Asks for rows of the HELD tiles from `first` on, a lane for each tile.
template <int DIM, int KV>
__device__ __forceinline__ void ask_for(const u8* cache, u64 slots, int first, int end) {
    const int lane = threadIdx.x % WARP, begin = first + lane * APART, rows = min(16, end - begin);
    if (lane < HELD && rows > 0) ask_for_rows<DIM, KV>(cache, slots, begin, rows);
}

// As `attend` of attn_token/tiles.cuh.
template <int DIM, int KV>
__device__ __forceinline__ Share attend_keys(float* states, uint4* shared, const float* q, const u8* k, const u8* v,
                                             const float* k_scale, const float* v_scale, const int* len, HeadSet set, int split,
                                             int max_len) {
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
    const u64 slots = (u64)set.kv * max_len;
    const int length = *(const volatile int*)len, newest = length - 1;
    const Share share = share_of(split, length, MIN_KEYS, 16);
    int first = share.begin + warp * 16;
    Tile<DIM, KV> tiles[HELD];
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        tiles[i].load_keys(k, k_scale, v_scale, slots, first + i * APART, min(share.end, newest));
    }
    if (AHEAD >= 1) ask_for<DIM, KV>(v, slots, first, share.end);
    if (AHEAD >= 2) {
        ask_for<DIM, KV>(k, slots, first + HELD * APART, share.end);
        ask_for<DIM, KV>(v, slots, first + HELD * APART, share.end);
    }
    // Always so; a basic block of its own keeps loads from being moved behind the wait.
    if (length > 0) pdl_wait();
    if (split >= share.active) return share;
    SharedQueries<DIM>::fill(shared, q, set);
    if (newest < share.end) {
#pragma unroll
        for (int i = 0; i < HELD; ++i) tiles[i].load_key_row(k, k_scale, v_scale, slots, first + i * APART, newest);
    }
    __syncthreads();

    const SharedQueries<DIM> queries = {shared};
    const float unit = Sums<DIM, KV>::unit();
    Sums<DIM, KV> sums;
    for (; first < share.end; first += HELD * APART) {
        const int next = first + HELD * APART;
        float scores[HELD][4], value_scales[HELD][2];
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const int at = first + i * APART;
            tiles[i].score(scores[i], queries);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const bool real = at + g + 8 * (j / 2) < share.end;
                scores[i][j] = real ? scores[i][j] * (KV == 8 ? unit * tiles[i].key_scales[j / 2] : unit) : -F32_INFINITY;
            }
            value_scales[i][0] = tiles[i].value_scales[0] * SCALE_UNIT;
            value_scales[i][1] = tiles[i].value_scales[1] * SCALE_UNIT;
            // Loads stay behind it: values brought in before keys are done with would need registers of their own.
            __syncwarp();
            tiles[i].load_values(v, slots, at, share.end);
        }
        sums.weigh(scores, value_scales);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            tiles[i].add(sums.acc, scores[i]);
            // Whether there are more or not: keys that could be kept would need registers beside those of values.
            tiles[i].load_keys(k, k_scale, v_scale, slots, next + i * APART, share.end);
        }
    }
    sums.store(states);
    return share;
}

extern "C" __global__ void CLUSTER_OF(1, SPLITS, 1) __launch_bounds__(THREADS)
attn_token_cluster_keys(const float* q,        // [HEADS, DIM]
                        const u8* k,           // see above
                        const u8* v,           // see above
                        const float* k_scale,  // [KV_HEADS, MAX_LEN], or null where KV_BITS is 16
                        const float* v_scale,  // the same
                        u8* out,               // see above
                        u8* scratch,           // unused
                        const int* len,        // [1]
                        int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    __shared__ __align__(16) float states[WARPS * HPB * STATE];
    __shared__ __align__(16) float inbox[INBOX];
    __shared__ uint4 queries[MOST_DIM / 32 * WARP];
    (void)scratch;
    (void)KV;
    pdl_launch();
    cluster_arrive();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int rank = blockIdx.y;
    const Share share =
        DIM == 128 ? attend_keys<128, KV_BITS>(states, queries, q, k, v, k_scale, v_scale, len, set, rank, MAX_LEN)
                   : attend_keys<64, KV_BITS>(states, queries, q, k, v, k_scale, v_scale, len, set, rank, MAX_LEN);
    exchange(states, inbox, out, set, rank, share, HEADS, DIM, OUT);
}
