// attn_token / cluster_held: attention of one token on tensor cores, keys split over the blocks of a cluster; most of a block's
// share is in registers and shared memory before the kernel ahead has ended.
//
//   q  f32 [HEADS, DIM]     k, v  f16 [KV_HEADS, MAX_LEN, DIM]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// As attn_token/cluster, in groups of 1 + HELD tiles. There a warp has one tile in registers and asks for the next when it has
// scored it: a microsecond for each behind the first. Here the keys of a group's further tiles, and the values of VALUES of them,
// come to shared memory ahead of the wait. All tiles of a group are scored before a value is added, with one maximum; values that
// are not held come into the registers that the first keys leave, and, where there are two such tiles, into those of the first
// values. Queries lie in shared memory.
//
// A thread has 160 registers: blocks of four warps then find room beside one of 512 threads with 88 each (qkv_rope), and their
// shared memory does where the split of L1 leaves it (SHARED).
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   HELD      tiles of 16 keys that a warp has in shared memory
//   VALUES    how many of them have their values there, HELD - 2 at least
//   LAUNCH    where the next kernel's blocks may start, whose weights take the way that keys and values take: 0 at once, 1 when
//       the queries are there, 2 when what is left to load is under way, 3 behind the last key, of the first warp that is there
//   SHARED    percent of the most shared memory of a multiprocessor that all kernels of a token ask for, 0 where the driver
//       chooses; sets the launch
//   SPLITS    blocks of a cluster, at most 16; above 8 a device need not have room for one
//   MIN_KEYS  the least share of a block
#if !defined(WARPS) || !defined(HELD) || !defined(VALUES) || !defined(LAUNCH) || !defined(SHARED) || !defined(SPLITS) || \
    !defined(MIN_KEYS)
#error "attn_token/cluster_held: every tunable must be set by the build"
#endif
// What a warp holds in shared memory is where it leaves its part in the end.
#define STATES_APART ((HELD + VALUES) * 16 * MOST_DIM * 2 / 4)
#include "attn_token/tiles.cuh"  // Says how many heads a block has.

#include "attn_token/exchange.cuh"
#include "attn_token/held_tiles.cuh"
#include "attn_token/shared_queries.cuh"
#include "cluster.cuh"
#include "pdl.cuh"

constexpr int APART = WARPS * 16;      // Keys between two tiles of a warp.
constexpr int LOOSE = HELD - VALUES;   // Tiles whose values come when their keys are scored.
static_assert(LOOSE >= 0 && LOOSE <= 2, "registers have room for the values of two tiles");
static_assert(STATES_APART >= HPB * STATE, "a warp's part takes the place of what it held");

// Asks for the values of a tile to come to L2.
template <int DIM>
__device__ __forceinline__ void ask_values(const u8* v, u64 slots, int first, int end) {
    const int rows = min(16, end - first);
    if (rows > 0 && threadIdx.x % WARP == 0) ask_for_rows<DIM, 16>(v, slots, first, rows);
}

// As `attend` of attn_token/tiles.cuh, but that the warps' parts are left in `shared`: [WARPS, STATES_APART] floats, at the start
// of each HELD + VALUES tiles of f16. `query_words` is uint4 [DIM / 32, WARP].
template <int DIM>
__device__ __forceinline__ Share attend_held(u8* shared, uint4* query_words, const float* q, const u8* k, const u8* v, const int* len,
                                             HeadSet set, int split, int max_len) {
    constexpr int BYTES = HeldKeys<DIM>::BYTES;
    static_assert(HeldValues<DIM>::BYTES == BYTES, "tiles are of one size");
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4;
    const u64 slots = (u64)set.kv * max_len;
    const int length = *(const volatile int*)len, newest = length - 1;
    const Share share = share_of(split, length, MIN_KEYS, 16);
    int first = share.begin + warp * 16;
    u8* const mine = shared + warp * (STATES_APART * 4) + lane * 16;
    const auto keys = [=](int h) { return HeldKeys<DIM>{mine + h * BYTES}; };
    const auto values = [=](int h) { return HeldValues<DIM>{mine + (HELD + h) * BYTES}; };
    // Brings rows [from, to) of the tiles that are held, the first of which begins with key `at`.
    const auto fetch_keys = [&](int at, int from, int to) {
#pragma unroll
        for (int h = 0; h < HELD; ++h) keys(h).fetch(k, slots, at + h * APART, from, to);
    };
    const auto fetch_values = [&](int at, int from, int to, int end) {
#pragma unroll
        for (int h = 0; h < VALUES; ++h) values(h).fetch(v, slots, at + h * APART, from, to, end);
    };
    Tile<DIM, 16> tile;
    const int old = min(share.end, newest);
    tile.load_keys(k, nullptr, nullptr, slots, first, old);
    tile.load_values(v, slots, first, old);
    fetch_keys(first + APART, 0, old);
    fetch_values(first + APART, 0, old, share.end);
#pragma unroll
    for (int h = VALUES; h < HELD; ++h) ask_values<DIM>(v, slots, first + (1 + h) * APART, share.end);
    // Always so; a basic block of its own keeps loads from being moved behind the wait.
    if (length > 0) pdl_wait();
    if (split >= share.active) {
        if (LAUNCH > 0) pdl_launch();
        return share;
    }
    // Before the queries, whose loads go to registers of earlier ones and so wait for these.
    if (newest < share.end) {
        tile.load_key_row(k, nullptr, nullptr, slots, first, newest);
        tile.load_value_row(v, slots, first, newest);
        fetch_keys(first + APART, newest, share.end);
        fetch_values(first + APART, newest, share.end, max_len);  // Zeros are there already.
    }
    copy_async_commit();
    SharedQueries<DIM>::fill(query_words, q, set);
    __syncthreads();
    if (LAUNCH == 1) pdl_launch();

    const SharedQueries<DIM> queries = {query_words};
    const float unit = Sums<DIM, 16>::unit();
    const float unused[1 + HELD][2] = {};
    Sums<DIM, 16> sums;
    while (first < share.end) {
        const int next = first + (1 + HELD) * APART;
        float scores[1 + HELD][4];
        tile.score(scores[0], queries);
        // Loads stay behind it: values brought in before keys are done with would need registers of their own.
        __syncwarp();
        Tile<DIM, 16> second, third;
        if (LOOSE > 0) second.load_values(v, slots, first + (1 + VALUES) * APART, share.end);
        copy_async_wait<0>();
        score_held<DIM, HELD>(scores + 1, mine, queries);
#pragma unroll
        for (int i = 0; i <= HELD; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const bool real = first + i * APART + g + 8 * (j / 2) < share.end;
                scores[i][j] = real ? scores[i][j] * unit : -F32_INFINITY;
            }
        }
        sums.weigh(scores, unused);
        tile.add(sums.acc, scores[0]);
        __syncwarp();
        if (LOOSE > 1) third.load_values(v, slots, first + (2 + VALUES) * APART, share.end);
        if (LAUNCH == 2 && next >= share.end) pdl_launch();
#pragma unroll
        for (int h = 0; h < VALUES; ++h) values(h).add(sums.acc, scores[1 + h]);
        if constexpr (LOOSE > 0) second.add(sums.acc, scores[1 + VALUES]);
        if constexpr (LOOSE > 1) third.add(sums.acc, scores[HELD]);
        if (next >= share.end) break;
        __syncwarp();
        tile.load_keys(k, nullptr, nullptr, slots, next, share.end);
        tile.load_values(v, slots, next, share.end);
        fetch_keys(next + APART, 0, share.end);
        fetch_values(next + APART, 0, share.end, share.end);
        copy_async_commit();
        first = next;
    }
    if (LAUNCH == 3) pdl_launch();
    // Its lanes have read what they held where others write now.
    __syncwarp();
    sums.store((float*)shared);
    return share;
}

extern "C" __global__ void CLUSTER_OF(1, SPLITS, 1) REGISTERS(160)
attn_token_cluster_held(const float* q,        // [HEADS, DIM]
                        const u8* k,           // see above
                        const u8* v,           // see above
                        const float* k_scale,  // null
                        const float* v_scale,  // null
                        u8* out,               // see above
                        u8* scratch,           // unused
                        const int* len,        // [1]
                        int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    DYNAMIC_SHARED(held);
    __shared__ __align__(16) float inbox[INBOX];
    __shared__ uint4 queries[MOST_DIM / 32 * WARP];
    (void)scratch;
    (void)k_scale;
    (void)v_scale;
    (void)KV;
    if (LAUNCH == 0) pdl_launch();
    cluster_arrive();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int rank = blockIdx.y;
    const Share share = DIM == 128 ? attend_held<128>(held, queries, q, k, v, len, set, rank, MAX_LEN)
                                   : attend_held<64>(held, queries, q, k, v, len, set, rank, MAX_LEN);
    exchange((const float*)held, inbox, out, set, rank, share, HEADS, DIM, OUT);
}
