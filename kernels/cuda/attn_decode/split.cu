// attn_decode / split: attention of one token, a block for each set of query heads that share a key head, keys split over
// its warps.
//
//   q  f32 [HEADS, DIM]     k, v  f16 [KV_HEADS, MAX_LEN, DIM]     out  f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// Online softmax in every group of lanes, merged in shared memory (attn_decode/group.cuh): one kernel, no scratch. Few blocks,
// so for short contexts; longer ones want split_merged. DIM is 64 or 128.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_decode.toml)
//   WARPS  warps in a block
//   STEP   keys that a warp has under way
//   HPB    query heads of a block; a group of more takes several blocks
#if !defined(WARPS) || !defined(STEP) || !defined(HPB)
#error "attn_decode/split: every tunable must be set by the build"
#endif
#include "attn_decode/group.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
attn_decode_split(const float* q,   // [HEADS, DIM]
                  const u16* k,     // [KV_HEADS, MAX_LEN, DIM]
                  const u16* v,     // [KV_HEADS, MAX_LEN, DIM]
                  float* out,       // [HEADS, DIM]
                  u8* scratch,      // unused
                  const int* len,   // [1]
                  int HEADS, int KV_HEADS, int DIM, int MAX_LEN) {
    __shared__ float states[WARPS * HPB * STATE];
    (void)scratch;
    pdl_launch();
    pdl_wait();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int length = len[0];
    if (DIM == 64) attend<64>(states, q, k, v, set, 0, length, MAX_LEN);
    else attend<128>(states, q, k, v, set, 0, length, MAX_LEN);
    __syncthreads();
    for (int i = threadIdx.x; i < set.count * DIM; i += WARPS * WARP) {
        const int h = i / DIM, d = i % DIM;
        const float* state = states + h * STATE;
        const Merged all = merge(state + d, state + MOST_DIM, HPB * STATE, WARPS);
        out[(set.first + h) * DIM + d] = all.value / all.l;
    }
}
