// swiglu / plain: out = gate / (1 + exp(-gate)) * up, a thread for each 32 results.
//
//   gu  f32 [M, 2 F], the gates of a token and then its ups     out  by OUT: f32 [M, F], f16 [M, F], or M slabs a8/32
//
// The baseline. Needs F % 32 == 0.
#include "half.cuh"
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"
#include "slab.cuh"

#define THREADS 64

extern "C" __global__ void __launch_bounds__(THREADS)
swiglu_plain(const float* gu,  // [M, 2 F]
             u8* out,          // see above
             int F, int M, int OUT) {
    (void)M;
    pdl_launch();
    pdl_wait();
    const int group = blockIdx.x * THREADS + threadIdx.x;
    if (group >= F / 32) return;
    const float* gates = gu + (u64)blockIdx.y * 2 * F + group * 32;
    const float* ups = gates + F;
    const u64 at = (u64)blockIdx.y * F + group * 32;
    float values[32], largest = 0.0f;
    for (int i = 0; i < 32; ++i) {
        values[i] = gates[i] / (1.0f + expf(-gates[i])) * ups[i];
        largest = fmaxf(largest, fabsf(values[i]));
    }
    if (OUT == 32) {
        for (int i = 0; i < 32; ++i) ((float*)out)[at + i] = values[i];
    } else if (OUT == 16) {
        for (int i = 0; i < 32; ++i) ((u16*)out)[at + i] = f32_to_f16_saturated(values[i]);
    } else {
        u8* slab = out + (u64)blockIdx.y * slab_stride(F);
        const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
        int sum = 0;
        for (int i = 0; i < 32; ++i) {
            const int code = a8_code(values[i], inverse);
            slab[group * 32 + i] = (u8)code;
            sum += code;
        }
        float* pair = (float*)(slab + F) + group * 2;
        const float s = largest / 127.0f;
        pair[0] = s;
        pair[1] = s * (float)sum;
        if (group == F / 32 - 1 && F / 32 % 2 == 1) pair[2] = pair[3] = 0.0f;
    }
}
