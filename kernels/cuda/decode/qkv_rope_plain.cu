// qkv_rope / plain: norm, the joined rows of Q, K and V, bias, RoPE and the append to the cache, a block for each pair.
//
//   W  blocks of the file [(HEADS + 2 KV_HEADS) DIM, K]     x, norm  f32 [K]     q  f32 [HEADS, DIM]
//   k, v  f16 [KV_HEADS, MAX_LEN, DIM], of which position state[1] is written
//
// The baseline: the norm again for each pair, weights decoded one by one, sums in f32, nothing rounded before the product.
// FORMAT (a constant of the space) names the block type. No tunables.
#include "decode/plain.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
qkv_rope_plain(const u8* W,         // weights, see above
               const float* bias,   // [N] or null
               const float* norm,   // [K]
               const float* x,      // [K]
               const float2* rope,  // [MAX_LEN, DIM / 2]: cosine and sine
               const u32* state,    // token id, position, number of keys
               float* q,            // [HEADS, DIM]
               u8* k, u8* v,        // f16 [KV_HEADS, MAX_LEN, DIM]
               float* k_scale, float* v_scale,  // null
               int HEADS, int KV_HEADS, int DIM, int K, int MAX_LEN, int PAIRING, int KV, float eps,
               u8* scratch) {  // null
    __shared__ float parts[THREADS / WARP];
    (void)k_scale;
    (void)v_scale;
    (void)KV;
    (void)scratch;
    pdl_launch();
    pdl_wait();
    const int N = (HEADS + 2 * KV_HEADS) * DIM, half = DIM / 2;
    const int head = blockIdx.x / half, pair = blockIdx.x % half;
    const int i = PAIRING ? 2 * pair : pair, j = PAIRING ? i + 1 : i + half;
    const float scale = norm_scale(x, K, eps, parts);
    float a = normed_row(W, head * DIM + i, N, K, norm, x, scale, parts);
    float b = normed_row(W, head * DIM + j, N, K, norm, x, scale, parts);
    if (threadIdx.x != 0) return;
    if (bias) {
        a += bias[head * DIM + i];
        b += bias[head * DIM + j];
    }
    const u32 pos = state[1];
    if (head < HEADS + KV_HEADS) {
        const float2 turn = rope[(u64)pos * half + pair];
        const float first = a * turn.x - b * turn.y;
        b = a * turn.y + b * turn.x;
        a = first;
    }
    if (head < HEADS) {
        q[head * DIM + i] = a;
        q[head * DIM + j] = b;
    } else {
        const int of = head - HEADS;
        u16* const cache = (u16*)(of < KV_HEADS ? k : v) + ((u64)(of % KV_HEADS) * MAX_LEN + pos) * DIM;
        cache[i] = f32_to_f16(a);
        cache[j] = f32_to_f16(b);
    }
}
