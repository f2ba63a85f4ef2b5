// rmsnorm_gemv / each_block: y = W a8(norm(x)), a block for each tile of rows and the norm again in every one of them.
//
//   W  planes of [N, K]     x, norm  f32 [K]     y  f32 [N]
//
// The design that is known to lose where blocks are many (V41). The norm comes first and the rounding behind it, as in
// separate launches. Format: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/rmsnorm_gemv.toml)
//   WARPS, LPR, KW, RPL, UNROLL, PREFETCH  see decode/frame.cuh
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH)
#error "rmsnorm_gemv/each_block: every tunable must be set by the build"
#endif
#include "rmsnorm_gemv/norm_first.cuh"
#include "rmsnorm_gemv/rows.cuh"

extern "C" __global__ void FRAME_BOUNDS
rmsnorm_gemv_each_block(const u8* W,        // weights, see above
                        const float* norm,  // [K]
                        const float* x,     // [K]
                        float* y,           // [N]
                        int N, int K, float eps) {
    DYNAMIC_SHARED(slab);
    __shared__ float parts[WARPS];
    __shared__ float part[KW > 1 ? PART_FLOATS : 1];
    pdl_launch();
    NormFirst<false> stage(slab, nullptr, parts, norm, x, K, eps);
    each_row_of(W, y, N, K, stage, part);
}
