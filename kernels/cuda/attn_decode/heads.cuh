// Which query heads a block of attention works on, and what its warps leave in shared memory.
//
//   HPB  query heads of a block, at most; a group of more takes several blocks
#ifndef EDGELLM_HEADS_CUH
#define EDGELLM_HEADS_CUH

#include "dialect.cuh"

#if !defined(HPB)
#error "kernels of attention need HPB set by the build"
#endif

#define MOST_DIM 128
#define STATE (MOST_DIM + 4)  // Of one head in one warp: values, at MOST_DIM the maximum, behind it the sum; 16-byte aligned.

// Where the query heads of this block are: `count` heads from `first`, all of key head `kv`.
struct HeadSet {
    int kv, first, count;
};

// Block `index` of KV_HEADS * ceil(group / HPB).
__device__ __forceinline__ HeadSet head_set(int index, int heads, int kv_heads) {
    const int group = heads / kv_heads, sets = ceil_div(group, HPB), kv = index / sets, set = index % sets;
    return {kv, kv * group + set * HPB, min(HPB, group - set * HPB)};
}

#endif
