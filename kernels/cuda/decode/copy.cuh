// Activations as an earlier kernel has left them, rounded but for formats of floats: read where they lie, or copied to shared memory.
#ifndef EDGELLM_DECODE_COPY_CUH
#define EDGELLM_DECODE_COPY_CUH

#include "decode/frame.cuh"

static_assert(XSTAGE == 0 || XSTAGE == 1, "XSTAGE is a switch");

struct CopyStage {
    u8* const slab;     // shared memory with XSTAGE: K + K/4 bytes, or 4 K of floats
    const u8* const x;  // a slab a8/32, or floats
    const int K;

    __device__ __forceinline__ CopyStage(u8* slab, const u8* x, int K) : slab(slab), x(x), K(K) {}

    __device__ __forceinline__ void early() {}

    __device__ __forceinline__ void late() {
#if XSTAGE && FLOATS
        for (int base = 0; base < K / 4; base += 4 * THREADS) {
            uint4 v[4];
#pragma unroll
            for (int h = 0; h < 4; ++h) {
                const int at = base + h * THREADS + (int)threadIdx.x;
                if (at < K / 4) v[h] = load_16(x + at * 16);
            }
#pragma unroll
            for (int h = 0; h < 4; ++h) {
                const int at = base + h * THREADS + (int)threadIdx.x;
                if (at < K / 4) *(uint4*)(slab + Slab::place(K, at * 4)) = v[h];
            }
        }
        __syncthreads();
#elif XSTAGE
        // All loads of a chunk are under way before the first is stored: 16 codes each, and the pairs of their groups.
        for (int base = 0; base < K / 16; base += 2 * THREADS) {
            uint4 codes[2];
            float2 pair;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int at = base + h * THREADS + (int)threadIdx.x;
                if (at < K / 16) codes[h] = load_16(x + at * 16);
            }
            const int group = base / 2 + (int)threadIdx.x;
            if (group < K / 32) pair = Slab::copied_pair(x, K, group);
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int at = base + h * THREADS + (int)threadIdx.x;
                if (at < K / 16) *(uint4*)(slab + Slab::place(K, at / 2, at % 2 * 4)) = codes[h];
            }
            if (group < K / 32) ((float2*)(slab + K))[group] = pair;
        }
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
