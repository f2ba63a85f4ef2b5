// dequantize / plain: out = W in 16-bit floats, a thread for each weight.
//
//   W  blocks of the file [N, K]     out  f16 [N, K]
//
// The baseline: weights decoded one by one from bytes. FORMAT (a constant of the space) names the block type. No tunables.
#include "decode/plain.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
dequantize_plain(const u8* W,  // blocks of [N, K]
                 u16* out,     // [N, K]
                 int N, int K) {
    pdl_launch();
    pdl_wait();
    const u64 all = (u64)N * K;
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < all; i += (u64)gridDim.x * THREADS) {
        const int row = (int)(i / K), column = (int)(i % K);
        out[i] = f32_to_f16(plain_weight(W, row, column, N, K));
    }
}
