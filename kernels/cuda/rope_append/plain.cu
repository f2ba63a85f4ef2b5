// rope_append / plain: rows of queries, keys and values get bias, norm and rotation; queries go out, the rest to the cache.
//
//   qkv   f32 [M, HEADS + 2 KV_HEADS, DIM]: heads of the query, then of the key, then of the value
//   bias  f32 [HEADS + 2 KV_HEADS, DIM] or null     q_norm, k_norm  f32 [DIM] or null
//   rope  (cos, sin) f32 [MAX_LEN, ROT / 2]     pos  u32 [1], the position of the first row
//   q     f32 [M, HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM], f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//
// A warp for each head of each token; a lane holds pairs of elements that turn together, and those beyond ROT in pairs too,
// which stay. int8 is max|x| / 127 of the head's row, rounded half away from zero. Needs DIM <= 256, DIM and ROT even.
#include "half.cuh"
#include "pdl.cuh"
#include "quantize_a8/rounding.cuh"
#include "warp.cuh"

#define WARPS 4
#define PAIRS 4  // Of a lane, at 256 dimensions.

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
rope_append_plain(const float* qkv,     // [M, HEADS + 2 KV_HEADS, DIM]
                  const float* bias,    // [HEADS + 2 KV_HEADS, DIM] or null
                  const float* q_norm,  // [DIM] or null
                  const float* k_norm,  // [DIM] or null
                  const float2* rope,   // [MAX_LEN, ROT / 2]
                  const u32* pos,       // [1]
                  float* q,             // [M, HEADS, DIM]
                  u8* k, u8* v,         // see above
                  float* k_scale,       // [KV_HEADS, MAX_LEN], or null where KV is 16
                  float* v_scale,       // the same
                  int HEADS, int KV_HEADS, int DIM, int ROT, int M, int MAX_LEN, int PAIRING, int KV, float eps) {
    pdl_launch();
    const int lane = threadIdx.x % WARP, rows = HEADS + 2 * KV_HEADS;
    const int row = blockIdx.x * WARPS + threadIdx.x / WARP, token = row / rows, head = row % rows;
    pdl_wait();
    if (token >= M) return;
    const u64 position = (u64)pos[0] + token;
    const bool turns = head < HEADS + KV_HEADS;
    const float* const norm = head < HEADS ? q_norm : turns ? k_norm : nullptr;
    const float* const from = qkv + (u64)row * DIM;

    // The elements of pair p, and where they lie in the head.
    float a[PAIRS], b[PAIRS];
    int at_a[PAIRS], at_b[PAIRS];
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) {
        const int p = i * WARP + lane;
        const bool apart = PAIRING == 0 && p < ROT / 2;
        at_a[i] = apart ? p : 2 * p;
        at_b[i] = apart ? p + ROT / 2 : 2 * p + 1;
        a[i] = b[i] = 0.0f;
        if (p < DIM / 2) {
            a[i] = from[at_a[i]];
            b[i] = from[at_b[i]];
            if (bias != nullptr) {
                a[i] += bias[head * DIM + at_a[i]];
                b[i] += bias[head * DIM + at_b[i]];
            }
        }
        squares += a[i] * a[i] + b[i] * b[i];
    }
    if (norm != nullptr) {
        const float scale = 1.0f / sqrtf(warp_sum(squares) / (float)DIM + eps);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            if (i * WARP + lane < DIM / 2) {
                a[i] = a[i] * scale * norm[at_a[i]];
                b[i] = b[i] * scale * norm[at_b[i]];
            }
        }
    }
    if (turns) {
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            const int p = i * WARP + lane;
            if (p < ROT / 2) {
                const float2 turn = rope[position * (ROT / 2) + p];
                const float x = a[i];
                a[i] = x * turn.x - b[i] * turn.y;
                b[i] = x * turn.y + b[i] * turn.x;
            }
        }
    }

    if (head < HEADS) {
        float* const to = q + ((u64)token * HEADS + head) * DIM;
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            if (i * WARP + lane < DIM / 2) {
                to[at_a[i]] = a[i];
                to[at_b[i]] = b[i];
            }
        }
        return;
    }
    const u64 slot = (u64)(turns ? head - HEADS : head - HEADS - KV_HEADS) * MAX_LEN + position;
    u8* const cache = turns ? k : v;
    if (KV == 16) {
        u16* const to = (u16*)cache + slot * DIM;
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            if (i * WARP + lane < DIM / 2) {
                to[at_a[i]] = f32_to_f16_saturated(a[i]);
                to[at_b[i]] = f32_to_f16_saturated(b[i]);
            }
        }
        return;
    }
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) largest = fmaxf(largest, fmaxf(fabsf(a[i]), fabsf(b[i])));
    largest = warp_max(largest);
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    u8* const to = cache + slot * DIM;
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) {
        if (i * WARP + lane < DIM / 2) {
            to[at_a[i]] = (u8)a8_code(a[i], inverse);
            to[at_b[i]] = (u8)a8_code(b[i], inverse);
        }
    }
    if (lane == 0) (turns ? k_scale : v_scale)[slot] = largest / 127.0f;
}
