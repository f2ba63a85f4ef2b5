// logits_q8_0 / planes_dp4a: all logits and the index of the largest, with int8 activations quantised once (V34, V35).
//
//   W  Q8_0 in planes (gemv_k/formats.cuh), 8.5 bits a weight     x  a8/32     y  f32 [N]     id  u32 [1]
//
// The matvec of gemv_k/row_groups.cuh with a unit of 16 bytes of codes, half a block of 32. Each block joins its largest
// logit with the others' through one 64-bit maximum, and the last to arrive writes the id (logits/argmax.cuh): no second
// kernel, no pass over y. Needs K % 32 == 0.
//
// Tunables (set with -D; values and constraints in variants/spaces/logits_q8_0.toml)
//   LPR    lanes that share a row
//   KW     warps that share the columns of a row
//   RPL    rows of a lane group, which share the loads of activations
//   UNROLL units in flight for each row
//   WARPS  warps in a block
#if !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(WARPS)
#error "logits_q8_0/planes_dp4a: every tunable must be set by the build"
#endif
#include "gemv_k/formats.cuh"
#include "gemv_k/row_groups.cuh"
#include "logits/argmax.cuh"

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
logits_q8_0_planes_dp4a(const u8* W,   // weights, see above
                        const u8* x,   // a slab a8/32
                        float* y,      // [N]
                        u32* id,       // [1]
                        u8* scratch,   // 16 bytes, zeroed once and left zeroed
                        int N, int K) {
    __shared__ float part[PART_FLOATS];
    __shared__ u64 keys[WARPS];
    const int first = blockIdx.x * ROWS_PER_BLOCK;
    pdl_launch();
    float sums[RPL];
    dot_row_groups<Q80Planes>(sums, W, x, N, K, first);
    u64 key = 0;
    each_row(sums, part, [&](int row, float sum) {
        if (first + row >= N) return;
        y[first + row] = sum;
        const u64 mine = argmax_key(sum, (u32)(first + row));
        key = mine > key ? mine : key;
    });
    finish_argmax<WARPS>(key, keys, scratch, id);
}
