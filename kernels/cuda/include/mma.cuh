// Matrix products of a warp on tensor cores, D += A B, with fragments as the PTX manual lays them out:
//
//   lane l has group g = l / 4 and place t = l % 4. A is 16 rows by K, B is K by 8 columns, D is 16 by 8.
//   f16  A word w: row g + 8 (w & 1), columns 2t and 2t + 1 (+ 8 for w >= 2)   B word w: rows 2t, 2t + 1 (+ 8 w), column g
//   s8   A word w: row g + 8 (w & 1), columns 4t .. 4t + 3 (+ 16 for w >= 2)   B word w: rows 4t .. 4t + 3 (+ 16 w), column g
//   D    d[0], d[1]: row g, columns 2t, 2t + 1; d[2], d[3]: row g + 8
//
// Every lane of the warp must call them.
#ifndef EDGELLM_MMA_CUH
#define EDGELLM_MMA_CUH

#include "dialect.cuh"

// m16n8k8, f16 with f32 sums; sm_75 on. (PTX: mma.sync)
__device__ __forceinline__ void mma_f16_k8(float (&d)[4], const u32 (&a)[2], u32 b) {
#ifdef EDGELLM_EMULATED
    u32 bb[1] = {b};
    emulator::mma_f16(d, a, bb, 8);
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b));
#endif
}

#if defined(EDGELLM_EMULATED) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
// m16n8k16, f16 with f32 sums; sm_80 on. (PTX: mma.sync)
__device__ __forceinline__ void mma_f16_k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EDGELLM_EMULATED
    emulator::mma_f16(d, a, b, 16);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// m16n8k32, int8 with int32 sums; sm_80 on. (PTX: mma.sync)
__device__ __forceinline__ void mma_s8_k32(int (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EDGELLM_EMULATED
    emulator::mma_s8(d, a, b);
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#endif

#endif
