// attn_token / unified: attention of one token with a maximum that is given instead of found (V80, FlashDecoding++).
//
//   q  f32 [HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//   scratch  attn_token/finish.cuh
//
// split_merged where every weight is relative to the same maximum, 2^0: no running maximum, nothing that fades, and parts that
// are summed as they are. The exponent of a float reaches further than the scores of a model, so that no estimate has to
// be learnt. A warp whose sum of weights is out of reach (attn_decode/group.cuh) runs its keys again and finds their maximum;
// it alone, as the parts of warps and blocks meet with the maximum that each of them had.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   STEP      keys that a warp has under way
//   HPB       query heads of a block; a group of more takes several blocks
//   SPLITS    blocks to a set of heads, at most 256
//   MIN_KEYS  the least share of a split
#if !defined(WARPS) || !defined(STEP) || !defined(HPB) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_token/unified: every tunable must be set by the build"
#endif
#include "attn_decode/group.cuh"
#include "attn_token/finish.cuh"

template <int DIM, int KV>
__device__ __forceinline__ void attend_unified(float* states, const float* q, const u8* k, const u8* v, const float* k_scale,
                                               const float* v_scale, HeadSet set, Share share, int max_len) {
    typedef FloatQuery<KV> Query;
    if (attend<DIM, KV, Query, true>(states, q, k, v, k_scale, v_scale, set, share.begin, share.end, max_len)) return;
    attend<DIM, KV>(states, q, k, v, k_scale, v_scale, set, share.begin, share.end, max_len);
}

extern "C" __global__ void __launch_bounds__(THREADS)
attn_token_unified(const float* q,          // [HEADS, DIM]
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
        if (DIM == 64) attend_unified<64, 16>(states, q, k, v, k_scale, v_scale, set, share, MAX_LEN);
        else attend_unified<128, 16>(states, q, k, v, k_scale, v_scale, set, share, MAX_LEN);
    } else {
        if (DIM == 64) attend_unified<64, 8>(states, q, k, v, k_scale, v_scale, set, share, MAX_LEN);
        else attend_unified<128, 8>(states, q, k, v, k_scale, v_scale, set, share, MAX_LEN);
    }
    __syncthreads();
    finish(states, factors, &arrived, out, scratch, set, split, share.active, HEADS, DIM, OUT);
}
