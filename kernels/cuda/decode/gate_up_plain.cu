// gate_up / plain: norm, the joined rows of gate and up, silu(gate) * up and its rounding, a block for 32 outputs.
//
//   W  blocks of the file [2 F, K]: gate, then up     x, norm  f32 [K]     out  a slab a8/32 of [F], or f32 [F]
//   for formats of floats
//
// The baseline: one row after the other, weights decoded one by one, sums in f32, nothing rounded before the product.
// FORMAT (a constant of the space) names the block type. No tunables.
#include "decode/plain.cuh"
#include "decode/swiglu.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
gate_up_plain(const u8* W,        // weights, see above
              const float* norm,  // [K]
              const float* x,     // [K]
              u8* out,            // [F]
              int F, int K, float eps) {
    __shared__ float parts[THREADS / WARP];
    pdl_launch();
    pdl_wait();
    const float scale = norm_scale(x, K, eps, parts);
    float mine = 0.0f;
    for (int i = 0; i < 32; ++i) {
        const int at = blockIdx.x * 32 + i;
        const float gate = normed_row(W, at, 2 * F, K, norm, x, scale, parts);
        const float up = normed_row(W, F + at, 2 * F, K, norm, x, scale, parts);
        if (threadIdx.x == i) mine = silu(gate) * up;
    }
    if (threadIdx.x < 32) put_output(out, F, blockIdx.x * 32 + threadIdx.x, mine);
}
