// add / vector: y = a + b, four elements a thread in loads of 16 bytes; the last thread takes what is left over.
//
//   a, b, y  f32 [COUNT], at multiples of 16 bytes; y may be a
//
// Tunables (set with -D; values and constraints in variants/spaces/add.toml)
//   THREADS  threads in a block
#if !defined(THREADS)
#error "add/vector: every tunable must be set by the build"
#endif
#include "pdl.cuh"

static_assert(THREADS % WARP == 0 && THREADS <= 1024, "a block is whole warps");

extern "C" __global__ void __launch_bounds__(THREADS)
add_vector(const float* a,  // [COUNT]
           const float* b,  // [COUNT]
           float* y,        // [COUNT]
           int COUNT) {
    pdl_launch();
    pdl_wait();
    const int at = (blockIdx.x * THREADS + threadIdx.x) * 4;
    if (at + 4 <= COUNT) {
        const float4 v = *(const float4*)(a + at), w = *(const float4*)(b + at);
        *(float4*)(y + at) = make_float4(v.x + w.x, v.y + w.y, v.z + w.z, v.w + w.w);
    } else {
        for (int i = at; i < COUNT; ++i) y[i] = a[i] + b[i];
    }
}
