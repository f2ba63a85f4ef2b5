// attn_token / cluster_keys: attention of one token on tensor cores over a cache in f16, keys split over the blocks of a
// cluster; a warp holds the keys of several tiles before it holds a value (attn_token/keys_first.cuh).
//
//   q  f32 [HEADS, DIM]     k, v  f16 [KV_HEADS, MAX_LEN, DIM]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml): see attn_token/keys_first.cuh
#if !defined(WARPS) || !defined(HELD) || !defined(AHEAD) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_token/cluster_keys: every tunable must be set by the build"
#endif
#include "attn_token/keys_first.cuh"

extern "C" __global__ void CLUSTER_OF(1, SPLITS, 1) __launch_bounds__(THREADS)
attn_token_cluster_keys(const float* q,        // [HEADS, DIM]
                        const u8* k,           // see above
                        const u8* v,           // see above
                        const float* k_scale,  // null
                        const float* v_scale,  // null
                        u8* out,               // see above
                        u8* scratch,           // unused
                        const int* len,        // [1]
                        int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    (void)scratch;
    (void)KV;
    attend_keys_first<16>(q, k, v, k_scale, v_scale, out, len, HEADS, KV_HEADS, DIM, MAX_LEN, OUT);
}
