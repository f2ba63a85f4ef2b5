// embed / plain: the rows of a matrix of weights that M tokens name, as floats, a thread for each weight.
//
//   W  blocks of the file [N, K]     ids  u32 [M], each below N     x  f32 [M, K]
//
// One kernel for all formats: weights are decoded one at a time from the file's own blocks, as a row is a few kilobytes.
#if !defined(FORMAT)
#error "embed/plain needs FORMAT set by the build"
#endif
// Before the names of formats become numbers, which differ between the headers: which of them has blocks of 256.
#define JOINED_NAMES(a, b) a##b
#define JOINED(a, b) JOINED_NAMES(a, b)
#define IN_BLOCKS_OF_256_Q4_K 1
#define IN_BLOCKS_OF_256_Q5_K 1
#define IN_BLOCKS_OF_256_Q6_K 1
#define IN_BLOCKS_OF_256_TQ2_0 1
#if JOINED(IN_BLOCKS_OF_256_, FORMAT)
#include "gemv_k/decode.cuh"
#else
#include "native.cuh"
#endif
#include "pdl.cuh"

#define THREADS 128

extern "C" __global__ void __launch_bounds__(THREADS)
embed_plain(const u8* W,       // see above
            const u32* ids,    // [M]
            float* x,          // [M, K]
            int K, int M) {
    (void)M;
    pdl_launch();
    pdl_wait();
    const int column = blockIdx.x * THREADS + threadIdx.x, token = blockIdx.y;
    if (column >= K) return;
    const u64 id = ids[token];
#ifdef EDGELLM_DECODE_CUH
    const float weight = weight_at(W + id * row_bytes(K), column);
#elif FORMAT == F32 || FORMAT == F16 || FORMAT == BF16
    const float weight = weight_at(W, (int)id, column, 0, K);
#else
    const float weight = weight_at(W + id * ((u64)(K / 32) * BLOCK_BYTES), 0, column, 0, K);
#endif
    x[(u64)token * K + column] = weight;
}
