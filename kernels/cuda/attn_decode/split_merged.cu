// attn_decode / split_merged: attention of one token, keys split over blocks, the last block to arrive merges (V79 done right).
//
//   q  f32 [HEADS, DIM]     k, v  f16 [KV_HEADS, MAX_LEN, DIM]     out  f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//   scratch  attn_decode/splits.cuh
//
// A grid of head sets by SPLITS does not depend on the length, as a captured graph needs. DIM is 64 or 128.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_decode.toml)
//   WARPS     warps in a block
//   STEP      keys that a warp has under way
//   HPB       query heads of a block; a group of more takes several blocks
//   SPLITS    blocks to a set of heads, at most 256
//   MIN_KEYS  the least share of a split
#if !defined(WARPS) || !defined(STEP) || !defined(HPB) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_decode/split_merged: every tunable must be set by the build"
#endif
#include "attn_decode/splits.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
attn_decode_split_merged(const float* q,   // [HEADS, DIM]
                         const u16* k,     // [KV_HEADS, MAX_LEN, DIM]
                         const u16* v,     // [KV_HEADS, MAX_LEN, DIM]
                         float* out,       // [HEADS, DIM]
                         u8* scratch,      // see above
                         const int* len,   // [1]
                         int HEADS, int KV_HEADS, int DIM, int MAX_LEN) {
    __shared__ float states[WARPS * HPB * STATE];
    __shared__ u32 arrived;
    pdl_launch();
    pdl_wait();
    const Split split = split_of(blockIdx.y, len[0]);
    if (split.index >= split.active) return;
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    if (DIM == 64) attend<64>(states, q, k, v, set, split.begin, split.end, MAX_LEN);
    else attend<128>(states, q, k, v, set, split.begin, split.end, MAX_LEN);
    __syncthreads();
    meet_splits(states, &arrived, out, scratch, set, split, HEADS, DIM);
}
