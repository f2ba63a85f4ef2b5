// attn_decode / split_merged: attention of one token, keys split over blocks, the last block to arrive merges (V79 done right).
//
//   q  f32 [HEADS, DIM]     k, v  f16 [KV_HEADS, MAX_LEN, DIM]     out  f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//   scratch  u32 [HEADS] counters, then f32 [HEADS, SPLITS, DIM + 2]: values, maximum, sum; zeroed once and left zeroed
//
// A grid of head sets by SPLITS does not depend on the length, as a captured graph needs: each split takes a share of at
// least MIN_KEYS keys, those left without any leave at once, and the counter expects only the others. The merge reads the
// parts in the order of the splits, so results repeat bit for bit. DIM is 64 or 128.
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
#include "attn_decode/group.cuh"

static_assert(SPLITS >= 1 && SPLITS <= 256, "scratch holds the parts of 256 splits");
static_assert(MIN_KEYS >= 1, "a split has a key at least");

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
    const int length = len[0], share = max(MIN_KEYS, ceil_div(ceil_div(length, SPLITS), STEP) * STEP);
    const int active = ceil_div(length, share), split = blockIdx.y;
    if (split >= active) return;
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int begin = split * share, end = min(begin + share, length);
    if (DIM == 64) attend<64>(states, q, k, v, set, begin, end, MAX_LEN);
    else attend<128>(states, q, k, v, set, begin, end, MAX_LEN);
    __syncthreads();

    float* const partials = (float*)(scratch + HEADS * 4);
    const int size = DIM + 2;
    for (int i = threadIdx.x; i < set.count * DIM; i += WARPS * WARP) {
        const int h = i / DIM, d = i % DIM;
        const float* state = states + h * STATE;
        const Merged mine = merge(state + d, state + MOST_DIM, HPB * STATE, WARPS);
        if (active == 1) {
            out[(set.first + h) * DIM + d] = mine.value / mine.l;
        } else {
            float* partial = partials + ((u64)(set.first + h) * SPLITS + split) * size;
            partial[d] = mine.value;
            if (d == 0) {
                partial[DIM] = mine.m;
                partial[DIM + 1] = mine.l;
            }
        }
    }
    if (active == 1) return;

    // All of the block's stores are out before its ticket is drawn.
    __threadfence();
    __syncthreads();
    u32* const counter = (u32*)scratch + set.first;
    if (threadIdx.x == 0) arrived = atomicAdd(counter, 1u);
    __syncthreads();
    if (arrived != (u32)active - 1) return;
    __threadfence();
    for (int i = threadIdx.x; i < set.count * DIM; i += WARPS * WARP) {
        const int h = i / DIM, d = i % DIM;
        const float* of_head = partials + (u64)(set.first + h) * SPLITS * size;
        const Merged all = merge(of_head + d, of_head + DIM, size, active);
        out[(set.first + h) * DIM + d] = all.value / all.l;
    }
    // Every part has been read: all of the scratch goes back to zero, as it was found.
    __syncthreads();
    const int first = set.first * SPLITS * size, last = (set.first + set.count) * SPLITS * size;
    for (int i = first + (int)threadIdx.x; i < last; i += WARPS * WARP) partials[i] = 0.0f;
    if (threadIdx.x == 0) *counter = 0;
}
