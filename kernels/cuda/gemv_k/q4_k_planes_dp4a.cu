// gemv_q4_k / planes_dp4a: y = W x with int8 activations, scales and minima unpacked to bytes.
//
//   W  Q4_K in planes (gemv_k/formats.cuh), 4.625 bits a weight     x  a8/32 [M]     y  f32 [M, N]
//
// A unit is a sub-block of 32: 8 dp4a, then d sc s isum - dmin mn t. A warp's load of codes is 512 contiguous bytes.
// Sums of products are exact integers, sums over units are f32 in a fixed order. Needs K % 256 == 0.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_q4_k.toml)
//   LPR    lanes that share a row
//   KW     warps that share the columns of a row
//   RPL    rows of a lane group, which share the loads of activations
//   UNROLL units in flight for each row
//   WARPS  warps in a block
#if !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(WARPS)
#error "gemv_q4_k/planes_dp4a: every tunable must be set by the build"
#endif
#include "gemv_k/row_groups.cuh"
#include "gemv_k/formats.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemv_q4_k_planes_dp4a(const u8* W,  // weights, see above
                      const u8* x,  // [M] slabs a8/32
                      float* y,     // [M, N]
                      int N, int K, int M) {
    (void)M;
    __shared__ float part[PART_FLOATS];
    gemv_row_groups<Q4KPlanes>(W, x, y, N, K, part);
}
