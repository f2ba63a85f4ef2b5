// norm_logits / fused: norm, a8/32, all logits, the largest of them and the state of the next token in one launch.
//
//   W  planes of [N, K]     x, norm  f32 [K]     y  f32 [N]     next  u32 [4]: token id, position, number of keys, 0
//
// The id is the lowest of the largest logit. Each block joins its largest with the others' through one 64-bit maximum, and
// the last to arrive writes the state. `next` may lie over `pos`. Format: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/norm_logits.toml)
//   WARPS, LPR, KW, RPL, UNROLL, PREFETCH  see decode/frame.cuh
//   BLOCKS_PER_SM  blocks that stride over the tiles, for each multiprocessor; 0: a block for each tile
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH) || \
    !defined(BLOCKS_PER_SM)
#error "norm_logits/fused: every tunable must be set by the build"
#endif
#include "decode/next_token.cuh"
#include "decode/norm.cuh"

extern "C" __global__ void FRAME_BOUNDS
norm_logits_fused(const u8* W,        // weights, see above
                  const float* norm,  // [K]
                  const float* x,     // [K]
                  float* y,           // [N]
                  u32* next,          // [4]
                  u8* scratch,        // 16 bytes, zeroed once and left zeroed
                  const u32* pos,     // [1]
                  u32* ring,          // [1024], which the host reads, or null
                  int N, int K, float eps) {
    DYNAMIC_SHARED(slab);
    __shared__ float parts[WARPS];
    __shared__ float part[KW > 1 ? PART_FLOATS : 1];
    __shared__ u64 keys[WARPS];
    pdl_launch();
    const auto row_of = [=](int tile, int i) { return min(tile * TILE_ROWS + i, N - 1); };
    NormStage stage(slab, parts, norm, x, K, eps);
    u64 key = 0;
    u32 position = 0;
    const auto prepare = [&](int) {
        if (threadIdx.x == 0) position = *pos;
        return 0;
    };
    const auto finish = [&](int tile, int count, const float (&sums)[RPL], int) {
        const float logit = own_sum(sums, part, count) * stage.scale;
        const int row = tile * TILE_ROWS + own_row();
        if (own_row() < 0 || row >= N) return;
        y[row] = logit;
        const u64 mine = argmax_key(logit, (u32)row);
        key = mine > key ? mine : key;
    };
    each_tile(W, N, K, ceil_div(N, TILE_ROWS), row_of, stage, prepare, finish);
    finish_token<WARPS>(key, keys, scratch, position, next, ring);
}
