// attn_token / split_merged: attention of one token, keys split over blocks, the last block to arrive merges.
//
//   q  f32 [HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//   scratch  attn_token/finish.cuh
//
// attn_decode/split_merged with a cache of either form, for devices without the matrix instructions of attn_token/mma: the
// query heads of a block share every load, and every group of lanes keeps an online softmax of its own.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   STEP      keys that a warp has under way
//   HPB       query heads of a block; a group of more takes several blocks
//   SPLITS    blocks to a set of heads, at most 256
//   MIN_KEYS  the least share of a split
#if !defined(WARPS) || !defined(STEP) || !defined(HPB) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_token/split_merged: every tunable must be set by the build"
#endif
#include "attn_decode/group.cuh"
#include "attn_token/finish.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
attn_token_split_merged(const float* q,          // [HEADS, DIM]
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
    // The length stands since before this token.
    const Share share = share_of(split, *(const volatile int*)len, MIN_KEYS, STEP);
    pdl_wait();
    if (split >= share.active) return;
    if (KV == 16) {
        if (DIM == 64) attend<64, 16>(states, q, k, v, k_scale, v_scale, set, share.begin, share.end, MAX_LEN);
        else attend<128, 16>(states, q, k, v, k_scale, v_scale, set, share.begin, share.end, MAX_LEN);
    } else {
        if (DIM == 64) attend<64, 8>(states, q, k, v, k_scale, v_scale, set, share.begin, share.end, MAX_LEN);
        else attend<128, 8>(states, q, k, v, k_scale, v_scale, set, share.begin, share.end, MAX_LEN);
    }
    __syncthreads();
    finish(states, factors, &arrived, out, scratch, set, split, share.active, HEADS, DIM, OUT);
}
