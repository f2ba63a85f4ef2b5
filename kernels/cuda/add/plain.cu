// add / plain: y = a + b, a thread for each element.
//
//   a, b, y  f32 [COUNT]; y may be a
//
// The baseline.
#include "pdl.cuh"

#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS)
add_plain(const float* a,  // [COUNT]
          const float* b,  // [COUNT]
          float* y,        // [COUNT]
          int COUNT) {
    pdl_launch();
    pdl_wait();
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < COUNT) y[i] = a[i] + b[i];
}
