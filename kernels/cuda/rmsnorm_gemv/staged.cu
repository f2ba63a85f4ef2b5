// rmsnorm_gemv / staged: as rmsnorm_gemv/persistent, with the token staged in shared memory between the passes over it.
//
//   W  planes of [N, K]     x, norm  f32 [K]     y  f32 [N]
//
// The stage has room for the whole token: a fixed one of 1024 floats was overrun by K = 1536 (B6). It trades the second read
// from L2 for 4 K bytes of shared memory, and with them for blocks on a multiprocessor (V43). Format: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/rmsnorm_gemv.toml)
//   WARPS, LPR, KW, RPL, UNROLL, PREFETCH  see decode/frame.cuh
//   BLOCKS_PER_SM  blocks that stride over the tiles, for each multiprocessor; 0: a block for each tile
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH) || \
    !defined(BLOCKS_PER_SM)
#error "rmsnorm_gemv/staged: every tunable must be set by the build"
#endif
#include "rmsnorm_gemv/norm_first.cuh"
#include "rmsnorm_gemv/rows.cuh"

extern "C" __global__ void FRAME_BOUNDS
rmsnorm_gemv_staged(const u8* W,        // weights, see above
                    const float* norm,  // [K]
                    const float* x,     // [K]
                    float* y,           // [N]
                    int N, int K, float eps) {
    DYNAMIC_SHARED(slab);
    __shared__ float parts[WARPS];
    __shared__ float part[KW > 1 ? PART_FLOATS : 1];
    pdl_launch();
    // The token comes first: K + K / 4 bytes of codes end at no multiple of 16.
    NormFirst<true> stage(slab + 4 * K, (float*)slab, parts, norm, x, K, eps);
    each_row_of(W, y, N, K, stage, part);
}
