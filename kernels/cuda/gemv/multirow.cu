// gemv / multirow: y = W x, a warp per row and several rows per block, fused multiply-adds (V7-V10, V20).
//
//   W  planes, or g128  [N, K/32] blocks (include/planes.cuh)     x  f32 or f16  [M, K]     y  f32  [M, N]
//
// A lane loads VEC neighbouring 32-bit words of codes (8 weights each; 4 for Q8_0) of one block, BLOCKING times before it
// uses them. Four words are V8's wide load. Sums in f32 in a fixed order. Needs K % 32 == 0 (G128: 128). Any grid is right.
// Set by the build: FORMAT; XHALF, 1 where activations are f16.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_*.toml)
//   ROWS      rows, and so warps, of a block
//   VEC       32-bit words of codes in a load: 1, 2 or 4
//   BLOCKING  loads that a lane has under way: 1, 2 or 4
#if !defined(ROWS) || !defined(VEC) || !defined(BLOCKING) || !defined(XHALF)
#error "gemv/multirow: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "planes.cuh"
#include "warp.cuh"

static_assert(ROWS >= 1 && ROWS <= 32, "a block has 1024 threads at most");
static_assert(VEC == 1 || VEC == 2 || VEC == 4, "a load is 4, 8 or 16 bytes");

// Words of codes in a block of 32 weights.
constexpr int BLOCK_WORDS = 4 * CODE_WORDS;

struct Piece {
    u32 words[VEC];
    u32 high, scale;
};

__device__ __forceinline__ Piece load_piece(const Planes& p, u64 row_word, u32 row_block, int word) {
    Piece piece;
    const u8* at = p.codes + (row_word + word) * 4;
    if (VEC == 4) {
        uint4 v = load_weights_16(at);
        piece.words[0] = v.x;
        piece.words[1 % VEC] = v.y;
        piece.words[2 % VEC] = v.z;
        piece.words[3 % VEC] = v.w;
    } else if (VEC == 2) {
        uint2 v = load_weights_8(at);
        piece.words[0] = v.x;
        piece.words[1 % VEC] = v.y;
    } else {
        piece.words[0] = load_weights_4(at);
    }
    const u32 index = row_block + word / BLOCK_WORDS;
    piece.high = 0;
#if FORMAT == Q5_0
    piece.high = load_weights_4(p.high + (u64)index * 4);
#endif
#if FORMAT == Q4_1
    piece.scale = load_weights_4(p.scales + (u64)index * 4);
#else
    piece.scale = load_weights_2(p.scales + (u64)(index / SCALE_BLOCKS) * 2);
#endif
    return piece;
}

// Four neighbouring activations.
__device__ __forceinline__ float4 activations_at(const void* x, int i) {
#if XHALF
    uint2 v = load_8((const u8*)x + i * 2);
    float2 a = f16x2_to_f32(v.x), b = f16x2_to_f32(v.y);
    return make_float4(a.x, a.y, b.x, b.y);
#else
    uint4 v = load_16((const u8*)x + i * 4);
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w));
#endif
}

// Four codes of a word, a byte each, against four activations; `flat` collects their sum for the offset of the format.
__device__ __forceinline__ void add4(u32 codes, float4 x, float& sum, float& flat) {
#if FORMAT == Q8_0
    sum = fmaf((float)(i8)(codes & 255u), x.x, sum);
    sum = fmaf((float)(i8)(codes >> 8 & 255u), x.y, sum);
    sum = fmaf((float)(i8)(codes >> 16 & 255u), x.z, sum);
    sum = fmaf((float)(i8)(codes >> 24), x.w, sum);
    (void)flat;
#else
    // The offset is taken from the code itself, so that nothing cancels later.
    constexpr int OFFSET = FORMAT == Q5_0 ? 16 : FORMAT == Q4_1 ? 0 : 8;
    sum = fmaf((float)((int)(codes & 255u) - OFFSET), x.x, sum);
    sum = fmaf((float)((int)(codes >> 8 & 255u) - OFFSET), x.y, sum);
    sum = fmaf((float)((int)(codes >> 16 & 255u) - OFFSET), x.z, sum);
    sum = fmaf((float)((int)(codes >> 24) - OFFSET), x.w, sum);
    flat += (x.x + x.y) + (x.z + x.w);
#endif
}

__device__ __forceinline__ float piece_dot(const Piece& p, const void* x, int word, float total) {
    float sum = 0.0f, flat = 0.0f;
    const int first = word / BLOCK_WORDS * 32;
#pragma unroll
    for (int v = 0; v < VEC; v++) {
        const int i = word % BLOCK_WORDS + v;
#if FORMAT == Q8_0
        add4(p.words[v], activations_at(x, first + 4 * i), sum, flat);
#else
        u32 low = p.words[v] & 0x0f0f0f0fu, high = p.words[v] >> 4 & 0x0f0f0f0fu;
#if FORMAT == Q5_0
        // Bit 8 j + i is that of byte j of word i, the upper nibbles' four words later.
        low |= (p.high >> i & 0x01010101u) << 4;
        high |= (p.high >> (i + 4) & 0x01010101u) << 4;
#endif
#if FORMAT == G128
        // Byte j holds columns 2j and 2j + 1.
        add4(__byte_perm(low, high, 0x5140), activations_at(x, first + 8 * i), sum, flat);
        add4(__byte_perm(low, high, 0x7362), activations_at(x, first + 8 * i + 4), sum, flat);
#else
        add4(low, activations_at(x, first + 4 * i), sum, flat);
        add4(high, activations_at(x, first + 16 + 4 * i), sum, flat);
#endif
#endif
    }
    total = fmaf(f16_to_f32((u16)(p.scale & 0xffffu)), sum, total);
#if FORMAT == Q4_1
    total = fmaf(f16_to_f32((u16)(p.scale >> 16)), flat, total);
#endif
    return total;
}

extern "C" __global__ void __launch_bounds__(ROWS * WARP)
gemv_multirow(const u8* __restrict__ W,  // planes of [N, K/32]
              const u8* x,               // [M, K] f32 or f16
              float* y,                  // [M, N]
              int N, int K, int M) {
    constexpr int STEP = WARP * VEC;
    const int lane = threadIdx.x % WARP;
    const int words = K / 32 * BLOCK_WORDS;
    const Planes planes = planes_of(W, N, K);
    pdl_launch();
    pdl_wait();
    x += (i64)blockIdx.y * K * (XHALF ? 2 : 4);
    y += (i64)blockIdx.y * N;
    for (int row = blockIdx.x * ROWS + threadIdx.x / WARP; row < N; row += gridDim.x * ROWS) {
        const u32 row_block = (u32)row * (K / 32);
        const u64 row_word = (u64)row_block * BLOCK_WORDS;
        float total = 0.0f;
        for (int word = lane * VEC; word < words; word += STEP * BLOCKING) {
            Piece held[BLOCKING];
#pragma unroll
            for (int i = 0; i < BLOCKING; i++) {
                if (word + i * STEP < words) held[i] = load_piece(planes, row_word, row_block, word + i * STEP);
            }
#pragma unroll
            for (int i = 0; i < BLOCKING; i++) {
                if (word + i * STEP < words) total = piece_dot(held[i], x, word + i * STEP, total);
            }
        }
        total = warp_sum(total);
        if (lane == 0) y[row] = total;
    }
}
