// attn_token / mma: attention of one token on tensor cores, keys split over blocks, the last to arrive merges.
//
//   q  f32 [HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//   scratch  attn_token/finish.cuh
//
// Tiles of keys on matrix instructions (attn_token/tiles.cuh), the blocks of a set of heads meet in scratch memory.
//
// A grid of head sets by SPLITS does not depend on the length, as a captured graph needs: each split takes a share of at
// least MIN_KEYS keys, those left without any leave at once.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   TILES     tiles of 16 keys that a warp has under way
//   SPLITS    blocks to a set of heads, at most 256
//   MIN_KEYS  the least share of a split
#if !defined(WARPS) || !defined(TILES) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_token/mma: every tunable must be set by the build"
#endif
#define TURNS_AHEAD 4
#include "attn_token/tiles.cuh"  // Says how many heads a block has.

#include "attn_token/finish.cuh"
#include "pdl.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
attn_token_mma(const float* q,          // [HEADS, DIM]
               const u8* k,             // see above
               const u8* v,             // see above
               const float* k_scale,    // [KV_HEADS, MAX_LEN], or null where KV is 16
               const float* v_scale,    // the same
               u8* out,                 // see above
               u8* scratch,             // see above
               const int* len,          // [1]
               int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    __shared__ __align__(16) float states[WARPS * HPB * STATE];
    __shared__ float factors[HPB * SPLITS];
    __shared__ u32 arrived;
    pdl_launch();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int split = blockIdx.y;
    const Share share = attend_any(states, q, k, v, k_scale, v_scale, len, set, split, MAX_LEN, DIM, KV);
    if (split >= share.active) return;
    __syncthreads();
    finish(states, factors, &arrived, out, scratch, set, split, share.active, HEADS, DIM, OUT);
}
