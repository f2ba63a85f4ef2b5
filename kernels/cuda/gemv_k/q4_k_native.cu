// gemv_q4_k / native: y = W x with int8 activations on the file's own blocks.
//
//   W  Q4_K blocks of the file, 144 bytes, 16-byte aligned     x  a8/32 [M]     y  f32 [M, N]
//
//          byte   0    2      4            16              144
//                 | d  | dmin | scales[12] | qs[0..127] |      byte m of pair p: weight 64 p + m low, 64 p + 32 + m high
//
// Nine loads of 16 bytes a block: the header is one address for all lanes of the block, the codes one vector a lane. No
// repacking, at the price of unpacking 6-bit scales in every lane.
// Sums of products are exact integers, sums over units are f32 in a fixed order. Needs K % 256 == 0.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_q4_k.toml)
//   LANES  lanes that share a block of 256: 4 or 8
//   LPR    lanes that share a row
//   KW     warps that share the columns of a row
//   RPL    rows of a lane group, which share the loads of activations
//   UNROLL units in flight for each row
//   WARPS  warps in a block
#if !defined(LANES) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(WARPS)
#error "gemv_q4_k/native: every tunable must be set by the build"
#endif
#include "gemv_k/row_groups.cuh"
#include "gemv_k/formats.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
gemv_q4_k_native(const u8* W,  // weights, see above
                 const u8* x,  // [M] slabs a8/32
                 float* y,     // [M, N]
                 int N, int K, int M) {
    (void)M;
    __shared__ float part[PART_FLOATS];
    gemv_row_groups<Q4KNative>(W, x, y, N, K, part);
}
