// rmsnorm_gemv / streaming: y = W a8(norm(x)), the norm and the rounding again for each group of lanes, as they go.
//
//   W  planes of [N, K]     x, norm  f32 [K]     y  f32 [N]
//
// Two passes over the token for the RPL rows of a lane group, and no shared memory: the first for the sum of squares, the
// second norms and rounds 32 elements at a time in registers, just before they are multiplied (V42). Instructive and slow:
// 32 elements take some 300 instructions to round and 8 to multiply. Format: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/rmsnorm_gemv.toml)
//   WARPS, LPR, RPL, UNROLL, PREFETCH  see decode/frame.cuh, where KW is 1, a constant of the space: lanes of several
//   warps could not sum squares without shared memory
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH)
#error "rmsnorm_gemv/streaming: every tunable must be set by the build"
#endif
static_assert(KW == 1, "a row belongs to lanes of one warp");
#include "rmsnorm_gemv/rows.cuh"
#include "rmsnorm_gemv/streamed.cuh"

extern "C" __global__ void FRAME_BOUNDS
rmsnorm_gemv_streaming(const u8* W,        // weights, see above
                       const float* norm,  // [K]
                       const float* x,     // [K]
                       float* y,           // [N]
                       int N, int K, float eps) {
    pdl_launch();
    StreamStage stage(norm, x, K, eps);
    each_row_of(W, y, N, K, stage, (float*)nullptr);
}
