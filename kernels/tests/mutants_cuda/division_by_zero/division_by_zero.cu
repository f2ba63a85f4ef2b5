// quantize_a8 / division_by_zero: deliberately wrong, for tests of the gate only.
//
// A group of zeros divides by its largest magnitude.
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"

#define THREADS 64

extern "C" __global__ void __launch_bounds__(THREADS)
division_by_zero(const float* x, u8* slab, int K) {
    pdl_launch();
    pdl_wait();
    const int group = blockIdx.x * THREADS + threadIdx.x;
    if (group >= K / 32) return;
    x += group * 32;
    float largest = 0.0f;
    for (int i = 0; i < 32; ++i) largest = fmaxf(largest, fabsf(x[i]));
    const float inverse = 127.0f / largest;  // BUG
    int sum = 0;
    for (int i = 0; i < 32; ++i) {
        const int code = x[i] * inverse == x[i] * inverse ? a8_code(x[i], inverse) : 1;
        slab[group * 32 + i] = (u8)code;
        sum += code;
    }
    float* pair = (float*)(slab + K) + group * 2;
    pair[0] = largest / 127.0f;
    pair[1] = largest / 127.0f * (float)sum;
}
