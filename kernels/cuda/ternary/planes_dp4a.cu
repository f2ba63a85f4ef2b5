// gemv_ternary / planes_dp4a: y = W x for TQ2_0 with int8 activations (V59).
//
//   W  TQ2_0 in planes (gemv_k/formats.cuh), 2.0625 bits a weight     x  a8/32 [M]     y  f32 [M, N]
//
// A unit is 16 bytes, 64 weights: 16 shifts and masks, 16 dp4a, then d (s isum - t) for each group of 32. Codes are 0, 1
// and 2; 3 is illegal and does not occur.
// Sums of products are exact integers, sums over units are f32 in a fixed order. Needs K % 256 == 0.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_ternary.toml)
//   LPR    lanes that share a row
//   KW     warps that share the columns of a row
//   RPL    rows of a lane group, which share the loads of activations
//   UNROLL units in flight for each row
//   WARPS  warps in a block
#if !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(WARPS)
#error "gemv_ternary/planes_dp4a: every tunable must be set by the build"
#endif
#include "gemv_k/row_groups.cuh"
#include "gemv_k/formats.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemv_ternary_planes_dp4a(const u8* W,  // weights, see above
                         const u8* x,  // [M] slabs a8/32
                         float* y,     // [M, N]
                         int N, int K, int M) {
    (void)M;
    __shared__ float part[PART_FLOATS];
    gemv_row_groups<TQ20Planes>(W, x, y, N, K, part);
}
