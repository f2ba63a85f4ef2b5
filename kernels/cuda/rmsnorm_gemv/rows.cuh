// What the kernels of rmsnorm_gemv share: y = W a8(norm(x)) by the frame of decode/frame.cuh, whatever makes the activations.
//
// They differ in that alone, so that two of them side by side show what one change costs.
#ifndef EDGELLM_RMSNORM_GEMV_ROWS_CUH
#define EDGELLM_RMSNORM_GEMV_ROWS_CUH

#include "decode/frame.cuh"

// `part` is shared memory of PART_FLOATS, where warps share rows. Sums are multiplied with the stage's `scale`.
template <class Stage>
__device__ __forceinline__ void each_row_of(const u8* W, float* y, int N, int K, Stage& stage, float* part) {
    const auto row_of = [=](int tile, int i) { return min(tile * TILE_ROWS + i, N - 1); };
    const auto finish = [&](int tile, int count, const float (&sums)[RPL], int) {
        const float sum = own_sum(sums, part, count) * stage.scale;
        const int row = tile * TILE_ROWS + own_row();
        if (own_row() >= 0 && row < N) y[row] = sum;
    };
    each_tile(W, N, K, ceil_div(N, TILE_ROWS), row_of, stage, [](int) { return 0; }, finish);
}

#endif
