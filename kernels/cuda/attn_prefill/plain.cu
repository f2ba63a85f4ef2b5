// attn_prefill / plain: causal attention of M tokens over the cache, a block for 8 tokens of a query head.
//
//   q  f32 [M, HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  f16 [M, HEADS, DIM]     pos  u32 [1]: token i stands at position pos + i and sees keys 0 to pos + i
//
// The baseline, and what devices without matrix instructions of this shape run: 128 keys at a time, a thread for the scores
// of one key, then a thread for each dimension of the output. Needs DIM <= 256, DIM % 8 == 0.
#include "attn_token/cache.cuh"
#include "half.cuh"
#include "pdl.cuh"
#include "warp.cuh"

#define THREADS 128
#define WARPS (THREADS / WARP)
#define QUERIES 8
#define MOST_DIM 256
#define PARTS (MOST_DIM / THREADS)

extern "C" __global__ void __launch_bounds__(THREADS)
attn_prefill_plain(const float* q,          // [M, HEADS, DIM]
                   const u8* k,             // see above
                   const u8* v,             // see above
                   const float* k_scale,    // [KV_HEADS, MAX_LEN], or null where KV is 16
                   const float* v_scale,    // the same
                   u16* out,                // [M, HEADS, DIM]
                   const u32* pos,          // [1]
                   int HEADS, int KV_HEADS, int DIM, int M, int MAX_LEN, int KV) {
    __shared__ float queries[MOST_DIM][QUERIES];
    __shared__ float weights[THREADS][QUERIES];
    __shared__ float maxima[WARPS][QUERIES], totals[WARPS][QUERIES];
    pdl_launch();
    pdl_wait();
    const int head = blockIdx.x, token = blockIdx.y * QUERIES, warp = threadIdx.x / WARP;
    const int first_position = (int)pos[0] + token;
    // Tokens past the last repeat it and are not stored.
    const int last = min(QUERIES - 1, M - 1 - token), keys = first_position + last + 1;
    const u64 slots = (u64)(head / (HEADS / KV_HEADS)) * MAX_LEN;
    const float scale = 1.0f / sqrtf((float)DIM);
    for (int i = threadIdx.x; i < DIM * QUERIES; i += THREADS) {
        const int t = i / DIM, d = i % DIM;
        queries[d][t] = q[((u64)(token + min(t, last)) * HEADS + head) * DIM + d] * scale;
    }
    __syncthreads();

    float maximum[QUERIES], total[QUERIES], sums[PARTS][QUERIES];
#pragma unroll
    for (int t = 0; t < QUERIES; ++t) {
        maximum[t] = -F32_MAX;
        total[t] = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; ++part) sums[part][t] = 0.0f;
    }
    for (int first = 0; first < keys; first += THREADS) {
        const int key = first + threadIdx.x;
        float scores[QUERIES] = {};
        if (key < keys) {
            for (int d = 0; d < DIM; d += 8) {
                float x[8];
                const u64 at = (slots + key) * DIM + d;
                if (KV == 16) {
                    Eight<16> some;
                    some.load(k, at);
                    some.floats(x);
                } else {
                    Eight<8> some;
                    some.load(k, at);
                    some.floats(x);
                }
#pragma unroll
                for (int i = 0; i < 8; ++i) {
#pragma unroll
                    for (int t = 0; t < QUERIES; ++t) scores[t] += queries[d + i][t] * x[i];
                }
            }
        }
        const float key_scale = key < keys ? scale_at(k_scale, slots + key, KV) : 0.0f;
#pragma unroll
        for (int t = 0; t < QUERIES; ++t) {
            scores[t] = key <= first_position + min(t, last) ? scores[t] * key_scale : -F32_MAX;
            const float best = warp_max(scores[t]);
            if (threadIdx.x % WARP == 0) maxima[warp][t] = best;
        }
        __syncthreads();
        float fade[QUERIES];
#pragma unroll
        for (int t = 0; t < QUERIES; ++t) {
            float next = maximum[t];
#pragma unroll
            for (int w = 0; w < WARPS; ++w) next = fmaxf(next, maxima[w][t]);
            fade[t] = expf(maximum[t] - next);
            maximum[t] = next;
            const float weight = key <= first_position + min(t, last) ? expf(scores[t] - next) : 0.0f;
            weights[threadIdx.x][t] = weight;
            const float of_warp = warp_sum(weight);
            if (threadIdx.x % WARP == 0) totals[warp][t] = of_warp;
        }
        __syncthreads();
#pragma unroll
        for (int t = 0; t < QUERIES; ++t) {
            total[t] *= fade[t];
#pragma unroll
            for (int w = 0; w < WARPS; ++w) total[t] += totals[w][t];
        }
        const int there = min(THREADS, keys - first);
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            const int d = part * THREADS + threadIdx.x;
            if (d < DIM) {
#pragma unroll
                for (int t = 0; t < QUERIES; ++t) sums[part][t] *= fade[t];
                for (int i = 0; i < there; ++i) {
                    const u64 slot = slots + first + i;
                    const float x = scale_at(v_scale, slot, KV) * element(v, slot * DIM + d, KV);
#pragma unroll
                    for (int t = 0; t < QUERIES; ++t) sums[part][t] += weights[i][t] * x;
                }
            }
        }
        // The next turn overwrites maxima, which were read before the last barrier, and behind a barrier the rest.
    }
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        const int d = part * THREADS + threadIdx.x;
#pragma unroll
        for (int t = 0; t < QUERIES; ++t) {
            if (d < DIM && t <= last) {
                out[((u64)(token + t) * HEADS + head) * DIM + d] = f32_to_f16_saturated(sums[part][t] / total[t]);
            }
        }
    }
}
