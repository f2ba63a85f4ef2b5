// The end of a decoded token: the blocks' largest logits meet, and the last block to arrive says what comes next.
#ifndef EDGELLM_DECODE_NEXT_TOKEN_CUH
#define EDGELLM_DECODE_NEXT_TOKEN_CUH

#include "logits/argmax.cuh"

// A store that the host sees with all that this thread and those it has met stored before. (PTX: st)
__device__ __forceinline__ void store_for_host(u32* at, u32 value) {
#ifdef EDGELLM_EMULATED
    *at = value;
#elif defined(__CUDA_ARCH__)
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
#endif
}

// Writes the token id with the largest key, its position and the number of keys once it is appended, and tells the host.
// `next` may lie over `pos`. One thread calls it.
__device__ __forceinline__ void put_next(u64 winner, u32 pos, u32* next, u32* ring) {
    const u32 id = winner == 0 ? 0u : ~(u32)winner;
    next[0] = id;
    next[1] = pos + 1;
    next[2] = pos + 2;
    next[3] = 0;
    // One more than the id, so that zero is a place nothing was written to.
    if (ring) store_for_host(ring + pos % 1024, id + 1);
}

// Joins the block's keys with those of all other blocks (see logits/argmax.cuh for the scratch). `keys` is shared memory
// with a place for each warp. Every thread of every block must call it; `pos` is that of thread 0.
template <int BLOCK_WARPS>
__device__ __forceinline__ void finish_token(u64 key, u64* keys, u8* scratch, u32 pos, u32* next, u32* ring) {
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
        put_next(winner, pos, next, ring);
    }
}

#endif
