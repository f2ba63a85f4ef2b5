// attn_decode / v81_table_ignored: deliberately wrong, for tests of the gate only.
//
// V81: the pages of the cache are read in the order of their numbers, not as the block table has them.
#include "pdl.cuh"
#include "warp.cuh"

#define THREADS 128
#define MOST_DIM 256
#define PAGE 16

extern "C" __global__ void __launch_bounds__(THREADS)
v81_table_ignored(const float* q,    // [HEADS, DIM]
                  const u16* k,      // [pages, KV_HEADS, PAGE, DIM]
                  const u16* v,      // [pages, KV_HEADS, PAGE, DIM]
                  float* out,        // [HEADS, DIM]
                  u8* scratch,       // unused
                  const int* len,    // [1]
                  const int* table,  // [ceil(MAX_LEN / PAGE)]
                  int HEADS, int KV_HEADS, int DIM) {
    __shared__ float weights[THREADS];
    __shared__ float maxima[THREADS / WARP];
    (void)scratch;
    (void)table;
    pdl_launch();
    pdl_wait();
    const int head = blockIdx.x, length = len[0];
    const int kv = head / (HEADS / KV_HEADS);
    q += head * DIM;
    const auto row_of = [=](int key) {
        const int page = key / PAGE;  // BUG
        return (((u64)page * KV_HEADS + kv) * PAGE + key % PAGE) * DIM;
    };
    const float scale = 1.0f / sqrtf((float)DIM);
    float maximum = -F32_MAX, total = 0.0f, sums[MOST_DIM / THREADS] = {};
    for (int first = 0; first < length; first += THREADS) {
        const int key = first + threadIdx.x;
        float score = -F32_MAX;
        if (key < length) {
            score = 0.0f;
            const u16* const row = k + row_of(key);
            for (int d = 0; d < DIM; ++d) score += q[d] * f16_to_f32(row[d]);
            score *= scale;
        }
        const float best = warp_max(score);
        if (threadIdx.x % WARP == 0) maxima[threadIdx.x / WARP] = best;
        __syncthreads();
        float next = maximum;
        for (int w = 0; w < THREADS / WARP; ++w) next = fmaxf(next, maxima[w]);
        weights[threadIdx.x] = key < length ? expf(score - next) : 0.0f;
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
                for (int i = 0; i < keys; ++i) sums[part] += weights[i] * f16_to_f32(v[row_of(first + i) + d]);
            }
        }
        // The next turn overwrites maxima and weights, each behind a barrier that comes after this turn's reads of it.
    }
#pragma unroll
    for (int part = 0; part < MOST_DIM / THREADS; ++part) {
        const int d = part * THREADS + threadIdx.x;
        if (d < DIM) out[head * DIM + d] = sums[part] / total;
    }
}
