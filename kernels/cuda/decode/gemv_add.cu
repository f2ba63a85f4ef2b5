// gemv_add / fused: y = r + W x, the matvec that ends on the residual.
//
//   W  planes of [N, K]     x  a slab a8/32 of [K], or f32 [K] for formats of floats     r, y  f32 [N], which may be the same
//
// The residual is loaded right after the wait, by the thread that stores the row. Format: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_add.toml)
//   WARPS, LPR, KW, RPL, UNROLL, PREFETCH  see decode/frame.cuh
//   BLOCKS_PER_SM  blocks that stride over the tiles, for each multiprocessor; 0: a block for each tile
//   XSTAGE  0: activations through L1, 1: copied to shared memory, where lanes do not meet in banks
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH) || \
    !defined(BLOCKS_PER_SM) || !defined(XSTAGE)
#error "gemv_add/fused: every tunable must be set by the build"
#endif
#include "decode/copy.cuh"

extern "C" __global__ void FRAME_BOUNDS
gemv_add_fused(const u8* W,     // weights, see above
               const u8* x,     // [K]
               const float* r,  // [N]
               float* y,        // [N]
               int N, int K) {
    DYNAMIC_SHARED(slab);
    __shared__ float part[KW > 1 ? PART_FLOATS : 1];
    pdl_launch();
    const auto row_of = [=](int tile, int i) { return min(tile * TILE_ROWS + i, N - 1); };
    CopyStage stage(slab, x, K);
    const auto prepare = [=](int tile) { return own_row() >= 0 ? r[row_of(tile, own_row())] : 0.0f; };
    const auto finish = [&](int tile, int count, const float (&sums)[RPL], float residual) {
        const float sum = own_sum(sums, part, count);
        const int row = tile * TILE_ROWS + own_row();
        if (own_row() >= 0 && row < N) y[row] = residual + sum;
    };
    each_tile(W, N, K, ceil_div(N, TILE_ROWS), row_of, stage, prepare, finish);
}
