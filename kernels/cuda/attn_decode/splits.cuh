// Splits of attention of one token: the keys of a set of heads over SPLITS blocks, the last of which to arrive merges.
//
//   scratch  u32 [HEADS] counters, then f32 [HEADS, SPLITS, DIM + 2]: values, maximum, sum; zeroed once and left zeroed
//
// Each split takes a share of at least MIN_KEYS keys, those left without any leave at once, and the counter expects only the
// others. The merge reads the parts in the order of the splits, so results repeat bit for bit.
//
//   SPLITS    blocks to a set of heads, at most 256
//   MIN_KEYS  the least share of a split
#ifndef EDGELLM_SPLITS_CUH
#define EDGELLM_SPLITS_CUH

#include "attn_decode/group.cuh"

static_assert(SPLITS >= 1 && SPLITS <= 256, "scratch holds the parts of 256 splits");
static_assert(MIN_KEYS >= 1, "a split has a key at least");

// The keys from `begin` to `end` of split `index`; it has none where it is not below `active`.
struct Split {
    int index, active, begin, end;
};

__device__ __forceinline__ Split split_of(int index, int length) {
    const int share = max(MIN_KEYS, ceil_div(ceil_div(length, SPLITS), STEP) * STEP), begin = index * share;
    return {index, ceil_div(length, share), begin, min(begin + share, length)};
}

// Ends the kernel: every thread of the block calls it behind a barrier, with the results of the warps in `states`.
__device__ __forceinline__ void meet_splits(const float* states, u32* arrived, float* out, u8* scratch, HeadSet set, Split split,
                                            int heads, int dim) {
    float* const partials = (float*)(scratch + heads * 4);
    const int size = dim + 2;
    for (int i = threadIdx.x; i < set.count * dim; i += WARPS * WARP) {
        const int h = i / dim, d = i % dim;
        const float* state = states + h * STATE;
        const Merged mine = merge(state + d, state + MOST_DIM, HPB * STATE, WARPS);
        if (split.active == 1) {
            out[(set.first + h) * dim + d] = mine.value / mine.l;
        } else {
            float* partial = partials + ((u64)(set.first + h) * SPLITS + split.index) * size;
            partial[d] = mine.value;
            if (d == 0) {
                partial[dim] = mine.m;
                partial[dim + 1] = mine.l;
            }
        }
    }
    if (split.active == 1) return;

    // All of the block's stores are out before its ticket is drawn.
    __threadfence();
    __syncthreads();
    u32* const counter = (u32*)scratch + set.first;
    if (threadIdx.x == 0) *arrived = atomicAdd(counter, 1u);
    __syncthreads();
    if (*arrived != (u32)split.active - 1) return;
    __threadfence();
    for (int i = threadIdx.x; i < set.count * dim; i += WARPS * WARP) {
        const int h = i / dim, d = i % dim;
        const float* of_head = partials + (u64)(set.first + h) * SPLITS * size;
        const Merged all = merge(of_head + d, of_head + dim, size, split.active);
        out[(set.first + h) * dim + d] = all.value / all.l;
    }
    // Every part has been read: all of the scratch goes back to zero, as it was found.
    __syncthreads();
    const int first = set.first * SPLITS * size, last = (set.first + set.count) * SPLITS * size;
    for (int i = first + (int)threadIdx.x; i < last; i += WARPS * WARP) partials[i] = 0.0f;
    if (threadIdx.x == 0) *counter = 0;
}

#endif
