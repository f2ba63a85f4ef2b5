// attn_token / cluster_bulk: attention of one token on tensor cores, keys split over the blocks of a cluster; keys
// and values come to shared memory by bulk copies.
//
//   q  f32 [HEADS, DIM]     k, v  f16 [KV_HEADS, MAX_LEN, DIM]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// As attn_token/cluster, but that what is under way takes no registers: a warp has a ring of tiles of 16 keys with their values,
// filled before the wait with all that stands since before this token. Blocks are small enough to find room beside those of the
// kernel ahead. Rows of a tile lie 64 bytes (keys) and 16 bytes (values) further apart than they are long, so that the lanes of
// a load do not meet in banks. The newest row is copied by hand behind the wait.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   STAGES    tiles of a warp's ring
//   SPLITS    blocks of a cluster, at most 16; above 8 a device need not have room for one
//   MIN_KEYS  the least share of a block
#if !defined(WARPS) || !defined(STAGES) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_token/cluster_bulk: every tunable must be set by the build"
#endif
#include "attn_token/tiles.cuh"  // Says how many heads a block has.

#include "attn_token/exchange.cuh"
#include "bulk_copy.cuh"
#include "cluster.cuh"
#include "pdl.cuh"

// A warp's ring, and what it knows of the cache.
template <int DIM>
struct Ring {
    static constexpr int ROW = DIM * 2, KEY_ROW = ROW + 64, VALUE_ROW = ROW + 16, TILE = 16 * (KEY_ROW + VALUE_ROW);
    u8* const tiles;
    u64* const ready;
    const u8 *const k, *const v;  // of the head
    const int end, newest;

    __device__ __forceinline__ u8* keys(int stage) const { return tiles + stage * TILE; }
    __device__ __forceinline__ u8* values(int stage) const { return tiles + stage * TILE + 16 * KEY_ROW; }

    // Starts the copies of the tile that begins with key `first`, of all its rows but the newest: a lane for each.
    __device__ __forceinline__ void fetch(int stage, int first) const {
        const int lane = threadIdx.x % WARP, row = lane % 16, rows = max(0, min(first + 16, min(end, newest)) - first);
        if (lane == 0) barrier_expect(&ready[stage], (u32)(2 * rows * ROW));
        __syncwarp();
        if (row >= rows) return;
        const i64 from = (i64)(first + row) * ROW;
        if (lane < 16) copy_bulk(keys(stage) + row * KEY_ROW, k + from, ROW, &ready[stage]);
        else copy_bulk(values(stage) + row * VALUE_ROW, v + from, ROW, &ready[stage]);
    }

    // Puts in what no copy brings: the newest row, and zeros for values behind the last key, which weigh nothing.
    __device__ __forceinline__ void complete(int stage, int first) const {
        if (first + 16 <= min(end, newest)) return;
        const int lane = threadIdx.x % WARP, at = lane % (ROW / 16) * 16, rows = end - first;
        if (first <= newest && newest < first + 16 && newest < end && lane < ROW / 8) {
            const int row = newest - first;
            if (lane < ROW / 16) *(uint4*)(keys(stage) + row * KEY_ROW + at) = load_16(k + (i64)newest * ROW + at);
            else *(uint4*)(values(stage) + row * VALUE_ROW + at) = load_16(v + (i64)newest * ROW + at);
        }
        for (int i = lane; i < (16 - rows) * (ROW / 16); i += WARP) {
            *(uint4*)(values(stage) + (rows + i / (ROW / 16)) * VALUE_ROW + i % (ROW / 16) * 16) = make_uint4(0, 0, 0, 0);
        }
        __syncwarp();
    }
};

// As `attend` of attn_token/tiles.cuh.
template <int DIM>
__device__ __forceinline__ Share attend_bulk(float* states, u8* shared, u64* barriers, const float* q, const u8* k, const u8* v,
                                             const int* len, HeadSet set, int split, int max_len) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4;
    u64* const ready = barriers + warp * STAGES;
    if (lane == 0) {
        for (int s = 0; s < STAGES; ++s) barrier_init(&ready[s]);
        barrier_init_fence();
    }
    __syncwarp();
    const int length = *(const volatile int*)len;
    const Share share = share_of(split, length, MIN_KEYS, 16);
    const u64 head = (u64)set.kv * max_len * Ring<DIM>::ROW;
    const Ring<DIM> ring = {shared + warp * STAGES * Ring<DIM>::TILE, ready, k + head, v + head, share.end, length - 1};
    const int begin = share.begin + warp * 16;
    for (int s = 0; s < STAGES && begin + s * WARPS * 16 < share.end; ++s) ring.fetch(s, begin + s * WARPS * 16);
    // Always so; a basic block of its own keeps loads from being moved behind the wait.
    if (length > 0) pdl_wait();
    if (split >= share.active) return share;
    Queries<DIM> queries;
    queries.load(q, set);

    Sums<DIM, 16> sums;
    int stage = 0;
    u32 parity = 0;
    for (int first = begin; first < share.end; first += WARPS * 16) {
        barrier_wait(&ready[stage], parity);
        ring.complete(stage, first);
        Tile<DIM, 16> tile;
        tile.read_keys(ring.keys(stage), Ring<DIM>::KEY_ROW);
        float scores[1][4];
        const float unused[1][2] = {};
        tile.score(scores[0], queries);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            scores[0][j] = first + g + 8 * (j / 2) < share.end ? scores[0][j] * Sums<DIM, 16>::unit() : -F32_INFINITY;
        }
        sums.weigh(scores, unused);
        tile.read_values(ring.values(stage), Ring<DIM>::VALUE_ROW);
        tile.add(sums.acc, scores[0]);
        // Every lane has read the tile before the copies of another may overwrite it.
        __syncwarp();
        if (first + STAGES * WARPS * 16 < share.end) ring.fetch(stage, first + STAGES * WARPS * 16);
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    sums.store(states);
    return share;
}

extern "C" __global__ void CLUSTER_OF(1, SPLITS, 1) __launch_bounds__(THREADS)
attn_token_cluster_bulk(const float* q,        // [HEADS, DIM]
                        const u8* k,           // see above
                        const u8* v,           // see above
                        const float* k_scale,  // null
                        const float* v_scale,  // null
                        u8* out,               // see above
                        u8* scratch,           // unused
                        const int* len,        // [1]
                        int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    DYNAMIC_SHARED(ring);
    __shared__ __align__(16) float states[WARPS * HPB * STATE];
    __shared__ __align__(16) float inbox[INBOX];
    __shared__ u64 barriers[WARPS * STAGES];
    (void)scratch;
    (void)k_scale;
    (void)v_scale;
    (void)KV;
    pdl_launch();
    cluster_arrive();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int rank = blockIdx.y;
    const Share share = DIM == 128 ? attend_bulk<128>(states, ring, barriers, q, k, v, len, set, rank, MAX_LEN)
                                   : attend_bulk<64>(states, ring, barriers, q, k, v, len, set, rank, MAX_LEN);
    exchange(states, inbox, out, set, rank, share, HEADS, DIM, OUT);
}
