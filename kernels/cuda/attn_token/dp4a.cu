// attn_token / dp4a: attention of one token over a cache in int8, scores by dot products of bytes (V72 with its bugs mended).
//
//   q  f32 [HEADS, DIM]     k, v  int8 [KV_HEADS, MAX_LEN, DIM] with scales f32 [KV_HEADS, MAX_LEN]: KV is 8
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//   scratch  attn_token/finish.cuh
//
// The queries are rounded to int8 once a block (attn_token/codes.cuh); values go into sums in floats. A lane has 16 bytes of a
// key, so that a warp's load is four keys of 128 dimensions or eight of 64, each read once for all query heads of the block.
// Every key keeps its own scale, and every group of lanes a maximum of its own, of any sign. Otherwise as split_merged.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS        warps in a block
//   STEP         keys that a warp has under way
//   HPB          query heads of a block; a group of more takes several blocks
//   SPLITS       blocks to a set of heads, at most 256
//   MIN_KEYS     the least share of a split
//   TURNS_AHEAD  turns that a warp asks to come into L2 before it waits for the kernel ahead
//   FIXED        1: the maximum is given and not found, as in attn_token/unified
#if !defined(WARPS) || !defined(STEP) || !defined(HPB) || !defined(SPLITS) || !defined(MIN_KEYS) || \
    !defined(TURNS_AHEAD) || !defined(FIXED)
#error "attn_token/dp4a: every tunable must be set by the build"
#endif
#include "attn_decode/group.cuh"
#include "attn_token/codes.cuh"
#include "attn_token/finish.cuh"

// Asks for the keys and values of the warp's first turns, and their scales. They may be asked for before they are written: L2 is
// where they are written to.
__device__ __forceinline__ void ask_ahead(const u8* k, const u8* v, const float* k_scale, const float* v_scale, u64 slots,
                                          Share share, int dim) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll 1
    for (int turn = 0; turn < TURNS_AHEAD; ++turn) {
        const int first = share.begin + (turn * WARPS + warp) * STEP, rows = min(STEP, share.end - first);
        if (rows <= 0) return;
        const u64 slot = slots + first;
        for (int at = lane * 128; at < rows * dim; at += WARP * 128) {
            prefetch_l2(k + slot * dim + at);
            prefetch_l2(v + slot * dim + at);
        }
        if (lane < 2) prefetch_l2((lane == 0 ? k_scale : v_scale) + slot);
    }
}

// A warp whose keys are too far from the given maximum runs them again and finds it.
template <int DIM>
__device__ __forceinline__ void attend_codes(float* states, const Staged* queries, const u8* k, const u8* v, const float* k_scale,
                                             const float* v_scale, HeadSet set, Share share, int max_len) {
    if (FIXED &&
        attend<DIM, 8, CodeQuery, true>(states, queries, k, v, k_scale, v_scale, set, share.begin, share.end, max_len)) {
        return;
    }
    attend<DIM, 8, CodeQuery>(states, queries, k, v, k_scale, v_scale, set, share.begin, share.end, max_len);
}

extern "C" __global__ void __launch_bounds__(THREADS)
attn_token_dp4a(const float* q,          // [HEADS, DIM]
                const u8* k,             // [KV_HEADS, MAX_LEN, DIM]
                const u8* v,             // the same
                const float* k_scale,    // [KV_HEADS, MAX_LEN]
                const float* v_scale,    // the same
                u8* out,                 // see above
                u8* scratch,             // see above
                const int* len,          // [1]
                int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    __shared__ __align__(16) float states[WARPS * HPB * STATE];
    __shared__ __align__(16) Staged queries;
    __shared__ float factors[HPB * SPLITS];
    __shared__ u32 arrived;
    (void)KV;
    pdl_launch();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int split = blockIdx.y;
    // The length stands since before this token.
    const Share share = share_of(split, *(const volatile int*)len, MIN_KEYS, STEP);
    ask_ahead(k, v, k_scale, v_scale, (u64)set.kv * MAX_LEN, share, DIM);
    pdl_wait();
    if (split >= share.active) return;
    stage_queries(queries, q, set, DIM);
    __syncthreads();
    if (DIM == 64) attend_codes<64>(states, &queries, k, v, k_scale, v_scale, set, share, MAX_LEN);
    else attend_codes<128>(states, &queries, k, v, k_scale, v_scale, set, share, MAX_LEN);
    __syncthreads();
    finish(states, factors, &arrived, out, scratch, set, split, share.active, HEADS, DIM, OUT);
}
