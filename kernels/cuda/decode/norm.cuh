// A norm, and for codes the rounding to a8/32, in front of a matvec, done by every block for itself in shared memory.
//
// The factor 1 / sqrt(mean(x^2) + eps) is the same for all elements, so it is left out of what is rounded and multiplies the
// sums of the product instead: rounding need not wait for the sum of squares, and one barrier serves both.
#ifndef EDGELLM_DECODE_NORM_CUH
#define EDGELLM_DECODE_NORM_CUH

#include "decode/frame.cuh"
#include "quantize_a8/rounding.cuh"

// Loads of 16 bytes of x, and of the norm's weights, that a thread has under way at once.
#define HOLD (WARPS >= 16 ? 2 : 4)
constexpr int NORM_CHUNK = HOLD * THREADS * 4;

struct NormStage {
    u8* const slab;      // shared memory: K + K/4 bytes, or 4 K of floats
    float* const parts;  // WARPS floats of shared memory
    const float *norm, *x;
    const int K;
    const float eps;
    float4 weights[HOLD];
    float scale;  // What sums are multiplied with; known after late().

    __device__ __forceinline__ NormStage(u8* slab, float* parts, const float* norm, const float* x, int K, float eps)
        : slab(slab), parts(parts), norm(norm), x(x), K(K), eps(eps), scale(0.0f) {}

    __device__ __forceinline__ void load_weights(int base) {
#pragma unroll
        for (int h = 0; h < HOLD; ++h) {
            const int at = base + (h * THREADS + (int)threadIdx.x) * 4;
            uint4 bits = make_uint4(0, 0, 0, 0);
            if (at < K) bits = load_weights_16(norm + at);
            weights[h] = make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                                     __uint_as_float(bits.w));
        }
    }

    __device__ __forceinline__ void early() { load_weights(0); }

    __device__ __forceinline__ void late() {
        float squares = 0.0f;
        for (int base = 0; base < K; base += NORM_CHUNK) {
            if (base > 0) load_weights(base);
            float4 v[HOLD];
#pragma unroll
            for (int h = 0; h < HOLD; ++h) {
                const int at = base + (h * THREADS + (int)threadIdx.x) * 4;
                v[h] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (at < K) v[h] = *(const float4*)(x + at);
            }
#pragma unroll
            for (int h = 0; h < HOLD; ++h) {
                // Whole warps beyond the end have nothing to do; of the last warp whole groups may lie beyond it.
                const int warp_at = base + (h * THREADS + (int)(threadIdx.x / WARP * WARP)) * 4;
                if (warp_at < K) squares += put(warp_at + (int)(threadIdx.x % WARP) * 4, v[h], weights[h]);
            }
        }
        squares = warp_sum(squares);
        if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = squares;
        __syncthreads();
        squares = parts[0];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) squares += parts[w];
        scale = 1.0f / sqrtf(squares / (float)K + eps);
    }

    // Puts four elements into the slab; of a group eight lanes have four each. Answers the sum of their squares.
    __device__ __forceinline__ float put(int at, float4 v, float4 w) {
        const float squares = v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
        v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
#if FLOATS
        if (at < K) *(float4*)(slab + Slab::place(K, at)) = v;
#else
        float largest = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
        for (int offset = 4; offset > 0; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, offset));
        const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
        const int a = a8_code(v.x, inverse), b = a8_code(v.y, inverse), c = a8_code(v.z, inverse), d = a8_code(v.w, inverse);
        int half = a + b + c + d;
        half += __shfl_xor_sync(FULL_WARP, half, 1);
        half += __shfl_xor_sync(FULL_WARP, half, 2);
        const int other = __shfl_xor_sync(FULL_WARP, half, 4);
        if (at < K) {
            const int group = at / 32, word = at % 32 / 4;
            *(u32*)(slab + Slab::place(K, group, word)) =
                (u32)(a & 255) | (u32)(b & 255) << 8 | (u32)(c & 255) << 16 | (u32)(d & 255) << 24;
            if (word == 0) ((float2*)(slab + K))[group] = Slab::pair(largest / 127.0f, half, other);
        }
#endif
        return squares;
    }

    __device__ __forceinline__ Weights::Activations load(int unit) const { return Slab::load(slab, K, unit); }
};

#endif
