// quantize_a8 / plain: activations of one token as a slab a8/32, a thread for each group of 32.
//
//   x  f32 [K]     slab  K int8, then K/32 pairs (f32 s, f32 t), zeros up to a multiple of 16
//
// s = max|x| / 127, codes round(x * (127 / max|x|)) half away from zero, t = s * sum of the codes; a group of zeros has s = 0.
// The baseline. Needs K % 32 == 0.
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"

#define THREADS 64

extern "C" __global__ void __launch_bounds__(THREADS)
quantize_a8_plain(const float* x,  // [K]
                  u8* slab,        // see above
                  int K) {
    pdl_launch();
    pdl_wait();
    const int group = blockIdx.x * THREADS + threadIdx.x;
    if (group >= K / 32) return;
    x += group * 32;
    float largest = 0.0f;
    for (int i = 0; i < 32; ++i) largest = fmaxf(largest, fabsf(x[i]));
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    int sum = 0;
    for (int i = 0; i < 32; ++i) {
        const int code = a8_code(x[i], inverse);
        slab[group * 32 + i] = (u8)code;
        sum += code;
    }
    float* pair = (float*)(slab + K) + group * 2;
    const float s = largest / 127.0f;
    pair[0] = s;
    pair[1] = s * (float)sum;
    if (group == K / 32 - 1 && K / 32 % 2 == 1) pair[2] = pair[3] = 0.0f;
}
