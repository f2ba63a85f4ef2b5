// attn_token / cluster: attention of one token on tensor cores, keys split over the blocks of a cluster, which
// write their parts to each other's shared memory.
//
//   q  f32 [HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// Tiles of keys on matrix instructions (attn_token/tiles.cuh). The blocks of a set of heads are a cluster: a barrier among them
// stands for the counter, the fences and the detour through scratch memory of attn_token/mma, and each of them merges a share
// of the result. The share of a block is at least MIN_KEYS keys; where one block has them all nothing is sent.
//
// KV_BITS (a constant of the space)  0: the cache is as KV says; 8: in int8, and a thread has 128 registers at most (WARPS 2, 4,
// 8). Blocks of four warps then find room beside one of 512 threads with 96 each (qkv_rope over int8) and start while it still
// runs.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   TILES     tiles of 16 keys that a warp has under way
//   TURNS_AHEAD  see attn_token/tiles.cuh
//   SPLITS    blocks of a cluster, at most 16; above 8 a device need not have room for one
//   MIN_KEYS  the least share of a block
#if !defined(WARPS) || !defined(TILES) || !defined(TURNS_AHEAD) || !defined(SPLITS) || !defined(MIN_KEYS) || \
    !defined(KV_BITS)
#error "attn_token/cluster: every tunable must be set by the build"
#endif
#include "attn_token/tiles.cuh"  // Says how many heads a block has.

#include "attn_token/exchange.cuh"
#include "cluster.cuh"
#include "pdl.cuh"

static_assert(KV_BITS == 0 || KV_BITS == 8, "8 is the only form of the cache that has a kernel of its own");
#if KV_BITS == 8
#define BOUNDS __launch_bounds__(THREADS, 16 / WARPS)
#else
#define BOUNDS __launch_bounds__(THREADS)
#endif

extern "C" __global__ void CLUSTER_OF(1, SPLITS, 1) BOUNDS
attn_token_cluster(const float* q,          // [HEADS, DIM]
                   const u8* k,             // see above
                   const u8* v,             // see above
                   const float* k_scale,    // [KV_HEADS, MAX_LEN], or null where KV is 16
                   const float* v_scale,    // the same
                   u8* out,                 // see above
                   u8* scratch,             // unused
                   const int* len,          // [1]
                   int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    __shared__ __align__(16) float states[WARPS * HPB * STATE];
    __shared__ __align__(16) float inbox[INBOX];
    (void)scratch;
    pdl_launch();
    cluster_arrive();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int rank = blockIdx.y;
    const Share share = attend_any(states, q, k, v, k_scale, v_scale, len, set, rank, MAX_LEN, DIM, KV_BITS ? KV_BITS : KV);
    exchange(states, inbox, out, set, rank, share, HEADS, DIM, OUT);
}
