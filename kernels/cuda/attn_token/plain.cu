// attn_token / plain: attention of one token over the cache, a block for each query head.
//
//   q  f32 [HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// The baseline, and what an exact table runs: 128 keys at a time, a thread for each score, then a thread for each dimension
// of the output. The running maximum keeps exponents below zero, so that any score is safe. Needs DIM <= 256, DIM % 32 == 0.
#include "attn_token/cache.cuh"
#include "attn_token/slab.cuh"
#include "pdl.cuh"

#define THREADS 128
#define MOST_DIM 256

extern "C" __global__ void __launch_bounds__(THREADS)
attn_token_plain(const float* q,          // [HEADS, DIM]
                 const u8* k,             // see above
                 const u8* v,             // see above
                 const float* k_scale,    // [KV_HEADS, MAX_LEN], or null where KV is 16
                 const float* v_scale,    // the same
                 u8* out,                 // see above
                 u8* scratch,             // unused
                 const int* len,          // [1]
                 int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    __shared__ float query[MOST_DIM];
    __shared__ float weights[THREADS];
    __shared__ float maxima[THREADS / WARP];
    (void)scratch;
    pdl_launch();
    pdl_wait();
    const int head = blockIdx.x, length = len[0];
    const u64 slots = (u64)(head / (HEADS / KV_HEADS)) * MAX_LEN;
    const float scale = 1.0f / sqrtf((float)DIM);
    for (int d = threadIdx.x; d < DIM; d += THREADS) query[d] = q[head * DIM + d];
    __syncthreads();
    float maximum = -F32_MAX, total = 0.0f, sums[MOST_DIM / THREADS] = {};
    for (int first = 0; first < length; first += THREADS) {
        const int key = first + threadIdx.x;
        float score = -F32_MAX;
        if (key < length) {
            score = 0.0f;
            for (int d = 0; d < DIM; ++d) score += query[d] * element(k, (slots + key) * DIM + d, KV);
            score *= scale * scale_at(k_scale, slots + key, KV);
        }
        const float best = warp_max(score);
        if (threadIdx.x % WARP == 0) maxima[threadIdx.x / WARP] = best;
        __syncthreads();
        float next = maximum;
        for (int w = 0; w < THREADS / WARP; ++w) next = fmaxf(next, maxima[w]);
        const float weight = key < length ? expf(score - next) : 0.0f;
        weights[threadIdx.x] = weight;
        const float fade = expf(maximum - next);
        maximum = next;
        __syncthreads();
        const int keys = min(THREADS, length - first);
        total *= fade;
        for (int i = 0; i < keys; ++i) total += weights[i];
#pragma unroll
        for (int part = 0; part < MOST_DIM / THREADS; ++part) {
            const int d = part * THREADS + threadIdx.x;
            if (d < DIM) {
                sums[part] *= fade;
                for (int i = 0; i < keys; ++i) {
                    const u64 slot = slots + first + i;
                    sums[part] += weights[i] * scale_at(v_scale, slot, KV) * element(v, slot * DIM + d, KV);
                }
            }
        }
        // The next turn overwrites maxima and weights, each behind a barrier that comes after this turn's reads of it.
    }
#pragma unroll
    for (int part = 0; part < MOST_DIM / THREADS; ++part) {
        const int d = part * THREADS + threadIdx.x;
        // Whole warps lie within or beyond the head.
        if (d < DIM) store_result(out, HEADS * DIM, head * DIM + d, sums[part] / total, OUT);
    }
}
