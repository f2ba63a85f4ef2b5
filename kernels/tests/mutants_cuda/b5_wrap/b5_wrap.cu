// quantize_a8 / b5_wrap: deliberately wrong, for tests of the gate only.
//
// B5: the largest magnitude of a part of the group, and int8 wraps beyond it.
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"

#define THREADS 64

extern "C" __global__ void __launch_bounds__(THREADS)
b5_wrap(const float* x, u8* slab, int K) {
    pdl_launch();
    pdl_wait();
    const int group = blockIdx.x * THREADS + threadIdx.x;
    if (group >= K / 32) return;
    x += group * 32;
    float largest = 0.0f;
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(x[i]));
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    int sum = 0;
    for (int i = 0; i < 32; ++i) {
        const int code = (i8)(int)roundf(x[i] * inverse);  // BUG
        slab[group * 32 + i] = (u8)code;
        sum += code;
    }
    float* pair = (float*)(slab + K) + group * 2;
    pair[0] = largest / 127.0f;
    pair[1] = largest / 127.0f * (float)sum;
}
