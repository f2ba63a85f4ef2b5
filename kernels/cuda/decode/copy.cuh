// Activations that an earlier kernel has rounded: read where they lie, or copied to shared memory.
#ifndef EDGELLM_DECODE_COPY_CUH
#define EDGELLM_DECODE_COPY_CUH

#include "decode/frame.cuh"

static_assert(XSTAGE == 0 || XSTAGE == 1, "XSTAGE is a switch");

struct CopyStage {
    u8* const slab;     // K + K/4 bytes of shared memory with XSTAGE
    const u8* const x;  // a slab a8/32
    const int K;

    __device__ __forceinline__ CopyStage(u8* slab, const u8* x, int K) : slab(slab), x(x), K(K) {}

    __device__ __forceinline__ void early() {}

    __device__ __forceinline__ void late() {
#if XSTAGE
        for (int i = threadIdx.x; i < K / 16; i += THREADS)
            *(uint4*)(slab + Slab::place(K, i / 2, i % 2 * 4)) = load_16(x + i * 16);
        for (int group = threadIdx.x; group < K / 32; group += THREADS)
            ((float2*)(slab + K))[group] = Slab::copied_pair(x, K, group);
        __syncthreads();
#endif
    }

    __device__ __forceinline__ Weights::Activations load(int unit) const {
#if XSTAGE
        return Slab::load(slab, K, unit);
#else
        return Weights::activations(x, K, unit);
#endif
    }
};

#endif
