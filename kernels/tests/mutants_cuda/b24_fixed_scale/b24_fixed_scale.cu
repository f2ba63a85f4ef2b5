// quantize_a8 / b24_fixed_scale: deliberately wrong, for tests of the gate only.
//
// B24: a fixed scale of 127, right only for magnitudes up to 1.
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"

#define THREADS 64

extern "C" __global__ void __launch_bounds__(THREADS)
b24_fixed_scale(const float* x, u8* slab, int K) {
    pdl_launch();
    pdl_wait();
    const int group = blockIdx.x * THREADS + threadIdx.x;
    if (group >= K / 32) return;
    x += group * 32;
    float largest = 0.0f;
    for (int i = 0; i < 32; ++i) largest = fmaxf(largest, fabsf(x[i]));
    const float inverse = 127.0f;  // BUG
    int sum = 0;
    for (int i = 0; i < 32; ++i) {
        const int code = a8_code(x[i], inverse);
        slab[group * 32 + i] = (u8)code;
        sum += code;
    }
    float* pair = (float*)(slab + K) + group * 2;
    pair[0] = largest / 127.0f;
    pair[1] = largest / 127.0f * (float)sum;
}
