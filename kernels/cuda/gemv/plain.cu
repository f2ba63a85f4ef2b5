// gemv / plain: y = W x, a block of 256 threads per row, one weight a step, floats throughout (V1; V14 with SUM=double).
//
//   W  blocks of the file, or g128  [N, K]     x  f32  [M, K]     y  f32  [M, N]
//
// The baseline that every other kernel is compared with, and with SUM=double the oracle on the device. Needs K % 32 == 0
// (G128: 128). Any grid is right. Set by the build: FORMAT, SUM (the type that sums are kept in). No tunables.
#if !defined(SUM)
#error "gemv/plain: SUM must be set by the build"
#endif
#include "native.cuh"
#include "pdl.cuh"

constexpr int THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_plain(const u8* __restrict__ W,  // [N, K]
           const float* x,            // [M, K]
           float* y,                  // [M, N]
           int N, int K, int M) {
    __shared__ SUM partial[THREADS];
    pdl_launch();
    pdl_wait();
    x += (i64)blockIdx.y * K;
    y += (i64)blockIdx.y * N;
    for (int row = blockIdx.x; row < N; row += gridDim.x) {
        SUM sum = 0;
        for (int k = threadIdx.x; k < K; k += THREADS) sum += (SUM)weight_at(W, row, k, N, K) * (SUM)x[k];
        partial[threadIdx.x] = sum;
        __syncthreads();
        for (int half = THREADS / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
            __syncthreads();
        }
        if (threadIdx.x == 0) y[row] = (float)partial[0];
    }
}
