// The queries of a set of heads in shared memory, which leaves their registers for keys and values.
//
//   WARPS  warps in a block
#ifndef EDGELLM_SHARED_QUERIES_CUH
#define EDGELLM_SHARED_QUERIES_CUH

#include "attn_decode/heads.cuh"
#include "dialect.cuh"
#include "half.cuh"

// The queries of a set of heads, as Queries has them, in shared memory: uint4 [DIM / 32, WARP].
template <int DIM>
struct SharedQueries {
    const uint4* words;

    __device__ __forceinline__ uint4 at(int i) const { return words[i * WARP + threadIdx.x % WARP]; }

    // Every thread of the block calls this, and meets the others before it calls `at`.
    static __device__ __forceinline__ void fill(uint4* words, const float* q, HeadSet set) {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
        for (int i = threadIdx.x / WARP; i < DIM / 32; i += WARPS) {
            uint4 a = make_uint4(0, 0, 0, 0), b = a;
            if (g < set.count) {
                const float* const from = q + (set.first + g) * DIM + 8 * (4 * i + t);
                a = load_16(from);
                b = load_16(from + 4);
            }
            words[i * WARP + lane] = make_uint4(pack_halves_saturated(__uint_as_float(a.x), __uint_as_float(a.y)),
                                                pack_halves_saturated(__uint_as_float(a.z), __uint_as_float(a.w)),
                                                pack_halves_saturated(__uint_as_float(b.x), __uint_as_float(b.y)),
                                                pack_halves_saturated(__uint_as_float(b.z), __uint_as_float(b.w)));
        }
    }
};

#endif
