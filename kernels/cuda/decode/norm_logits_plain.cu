// norm_logits / plain: norm, all logits, the largest of them and the state of the next token, a block for each row.
//
//   W  blocks of the file [N, K]     x, norm  f32 [K]     y  f32 [N]     next  u32 [4]: token id, position, number of keys, 0
//
// The baseline: the norm again for each row, weights decoded one by one, sums in f32. FORMAT (a constant of the space) names
// the block type. No tunables.
#include "decode/plain.cuh"

#include "decode/next_token.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
norm_logits_plain(const u8* W,        // weights, see above
                  const float* norm,  // [K]
                  const float* x,     // [K]
                  float* y,           // [N]
                  u32* next,          // [4]
                  u8* scratch,        // 16 bytes, zeroed once and left zeroed
                  const u32* pos,     // [1]
                  u32* ring,          // [1024], which the host reads, or null
                  int N, int K, float eps) {
    __shared__ float parts[THREADS / WARP];
    __shared__ u64 keys[THREADS / WARP];
    pdl_launch();
    pdl_wait();
    const float scale = norm_scale(x, K, eps, parts);
    const float logit = normed_row(W, blockIdx.x, N, K, norm, x, scale, parts);
    if (threadIdx.x == 0) y[blockIdx.x] = logit;
    finish_token<THREADS / WARP>(argmax_key(logit, blockIdx.x), keys, scratch, *pos, next, ring);
}
