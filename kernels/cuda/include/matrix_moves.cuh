// Matrices of 8 x 8 f16 from shared memory into fragments (mma.cuh), and turned over within a warp. Lane l has group g = l / 4
// and place t = l % 4; a fragment's word holds row g, columns 2t and 2t + 1. Every lane of the warp must call them.
#ifndef EDGELLM_MATRIX_MOVES_CUH
#define EDGELLM_MATRIX_MOVES_CUH

#include "dialect.cuh"

#ifdef EDGELLM_EMULATED
// The word of row `g`, columns 2t and 2t + 1, of the matrix whose row i lies at the address that lane `first` + i has.
__device__ __forceinline__ u32 emulated_matrix(const void* row, int first, bool turned) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    if (!turned) return ((const u32*)__shfl_sync(FULL_WARP, (u64)row, first + g))[t];
    const u16 low = ((const u16*)__shfl_sync(FULL_WARP, (u64)row, first + 2 * t))[g];
    const u16 high = ((const u16*)__shfl_sync(FULL_WARP, (u64)row, first + 2 * t + 1))[g];
    return (u32)low | (u32)high << 16;
}
#endif

// Four matrices from shared memory: row i of matrix m lies at the address, a multiple of 16, that lane 8 m + i gives.
// (PTX: ldmatrix)
__device__ __forceinline__ void load_matrices(u32 (&to)[4], const void* row) {
#ifdef EDGELLM_EMULATED
    for (int m = 0; m < 4; ++m) to[m] = emulated_matrix(row, 8 * m, false);
#else
    const u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
#endif
}

// The same, each matrix turned over: a word holds column g, rows 2t and 2t + 1. (PTX: ldmatrix.trans)
__device__ __forceinline__ void load_matrices_turned(u32 (&to)[4], const void* row) {
#ifdef EDGELLM_EMULATED
    for (int m = 0; m < 4; ++m) to[m] = emulated_matrix(row, 8 * m, true);
#else
    const u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
#endif
}

// A matrix in fragments turned over: from row g, columns 2t and 2t + 1 to column g, rows 2t and 2t + 1. (PTX: movmatrix)
__device__ __forceinline__ u32 turn_matrix(u32 word) {
#ifdef EDGELLM_EMULATED
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const u32 upper = __shfl_sync(FULL_WARP, word, 2 * t * 4 + g / 2);
    const u32 lower = __shfl_sync(FULL_WARP, word, (2 * t + 1) * 4 + g / 2);
    return (upper >> g % 2 * 16 & 0xffffu) | (lower >> g % 2 * 16 & 0xffffu) << 16;
#else
    u32 turned;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(word));
    return turned;
#endif
}

#endif
