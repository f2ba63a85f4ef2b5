// The index of the largest logit, found by the kernel that computes the logits.
//
// A value and its index become one 64-bit key that orders as they should: the larger value first, of equal values the lower
// index. So the largest key is the answer whatever the order in which blocks arrive, bit for bit. NaN has the key 0, below
// that of every number; where nothing else comes, the answer is index 0.
//
// Scratch, zeroed once: u64 best key, u32 ticket, 4 bytes unused. The last block to arrive writes the id and zeroes it.
#ifndef EDGELLM_ARGMAX_CUH
#define EDGELLM_ARGMAX_CUH

#include "dialect.cuh"

__device__ __forceinline__ u64 argmax_key(float value, u32 index) {
    if (value != value) return 0;
    const u32 bits = value == 0.0f ? 0u : __float_as_uint(value);  // Both zeros are equal.
    const u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)ordered << 32 | (u64)(u32)~index;
}

__device__ __forceinline__ u64 warp_max_key(u64 key) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const u64 other = __shfl_xor_sync(FULL_WARP, key, offset);
        key = other > key ? other : key;
    }
    return key;
}

// Joins the block's keys, one or more from each thread, with those of all other blocks. `keys` is shared memory with a
// place for each warp. Every thread of the block must call it, and every block of the grid.
template <int BLOCK_WARPS>
__device__ __forceinline__ void finish_argmax(u64 key, u64* keys, u8* scratch, u32* id) {
    key = warp_max_key(key);
    if (threadIdx.x % WARP == 0) keys[threadIdx.x / WARP] = key;
    __syncthreads();
    if (threadIdx.x != 0) return;
#pragma unroll
    for (int w = 1; w < BLOCK_WARPS; ++w) key = keys[w] > key ? keys[w] : key;
    u64* const best = (u64*)scratch;
    u32* const ticket = (u32*)(scratch + 8);
    atomicMax(best, key);
    // Our key is in before our ticket is drawn, so that whoever draws the last one sees all keys.
    __threadfence();
    if (atomicAdd(ticket, 1u) == gridDim.x - 1) {
        __threadfence();
        const u64 winner = atomicExch(best, (u64)0);
        *ticket = 0;
        *id = winner == 0 ? 0u : ~(u32)winner;
    }
}

#endif
