// gate_up / fused: norm, a8/32, the joined rows of gate and up, silu(gate) * up, and its rounding to a8/32 in one launch.
//
//   W  planes of [2 F, K]: gate, then up     x, norm  f32 [K]     out  a slab a8/32 of [F], or f32 [F]
//   for formats of floats
//
// A tile holds the gate and up rows of OUTS outputs, whole groups of 32 that a warp each rounds. Needs F % OUTS == 0.
// Format: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/gate_up.toml)
//   WARPS, LPR, KW, RPL, UNROLL, PREFETCH  see decode/frame.cuh
//   BLOCKS_PER_SM  blocks that stride over the tiles, for each multiprocessor; 0: a block for each tile
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH) || \
    !defined(BLOCKS_PER_SM)
#error "gate_up/fused: every tunable must be set by the build"
#endif
#include "decode/norm.cuh"
#include "decode/swiglu.cuh"

constexpr int OUTS = TILE_ROWS / 2;
static_assert(TILE_ROWS % 64 == 0, "a tile holds whole groups of 32 outputs");

extern "C" __global__ void FRAME_BOUNDS
gate_up_fused(const u8* W,        // weights, see above
              const float* norm,  // [K]
              const float* x,     // [K]
              u8* out,            // [F]
              int F, int K, float eps) {
    DYNAMIC_SHARED(slab);
    __shared__ float parts[WARPS];
    __shared__ float part[PART_FLOATS];
    pdl_launch();
    const auto row_of = [=](int tile, int i) { return tile * OUTS + i % OUTS + i / OUTS * F; };
    NormStage stage(slab, parts, norm, x, K, eps);
    const auto finish = [&](int tile, int count, const float (&sums)[RPL], int) {
        const float* const met = put_sums(sums, part, count);
        if (threadIdx.x >= OUTS) return;
        const float gate = row_sum(met, threadIdx.x) * stage.scale;
        const float up = row_sum(met, threadIdx.x + OUTS) * stage.scale;
        put_output(out, F, tile * OUTS + threadIdx.x, silu(gate) * up);
    };
    each_tile(W, 2 * F, K, F / OUTS, row_of, stage, [](int) { return 0; }, finish);
}
