// rmsnorm_gemv / epilogue: y = W a8(norm(x)), the factor of the norm left to the sums of the product.
//
//   W  planes of [N, K]     x, norm  f32 [K]     y  f32 [N]
//
// What is rounded is x times the norm's weights: codes do not depend on 1 / sqrt(mean(x^2) + eps), which is one number for
// all of them. Rounding waits for nothing, the sum of squares runs alongside, one barrier serves both, and each sum is
// multiplied once (V44). Format: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/rmsnorm_gemv.toml)
//   WARPS, LPR, KW, RPL, UNROLL, PREFETCH  see decode/frame.cuh
//   BLOCKS_PER_SM  blocks that stride over the tiles, for each multiprocessor; 0: a block for each tile
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH) || \
    !defined(BLOCKS_PER_SM)
#error "rmsnorm_gemv/epilogue: every tunable must be set by the build"
#endif
#include "decode/norm.cuh"
#include "rmsnorm_gemv/rows.cuh"

extern "C" __global__ void FRAME_BOUNDS
rmsnorm_gemv_epilogue(const u8* W,        // weights, see above
                      const float* norm,  // [K]
                      const float* x,     // [K]
                      float* y,           // [N]
                      int N, int K, float eps) {
    DYNAMIC_SHARED(slab);
    __shared__ float parts[WARPS];
    __shared__ float part[KW > 1 ? PART_FLOATS : 1];
    pdl_launch();
    NormStage stage(slab, parts, norm, x, K, eps);
    each_row_of(W, y, N, K, stage, part);
}
