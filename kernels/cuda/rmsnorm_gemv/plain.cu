// rmsnorm_gemv / plain: y = W norm(x), a block for each row.
//
//   W  blocks of the file [N, K]     x, norm  f32 [K]     y  f32 [N]
//
// The baseline: the norm again for each row, weights decoded one by one, sums in f32. FORMAT (a constant of the space) names
// the block type. No tunables.
#include "decode/plain.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
rmsnorm_gemv_plain(const u8* W,        // weights, see above
                   const float* norm,  // [K]
                   const float* x,     // [K]
                   float* y,           // [N]
                   int N, int K, float eps) {
    __shared__ float parts[THREADS / WARP];
    pdl_launch();
    pdl_wait();
    const float scale = norm_scale(x, K, eps, parts);
    const float sum = normed_row(W, blockIdx.x, N, K, norm, x, scale, parts);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
