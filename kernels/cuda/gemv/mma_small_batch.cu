// gemv / mma_small_batch: Y = W X for 2 to 8 tokens on tensor cores, weights read once for all of them (V13 done right).
//
//   W  planes, or g128  [N, K/32] blocks (include/planes.cuh)     x  f16  [M, K]     y  f32  [M, N]
//
// A warp holds 16 rows by 8 tokens. Codes less their offset are small whole numbers, exact in f16, so that the products of
// a block are exact in f32 and its scale is applied to the sums. The order of K inside a block is free as long as both
// operands agree: lane (g, t) takes the four neighbouring weights of word t and the four activations that meet them, one
// load each. KW warps share K and meet in shared memory. Needs K % 32 == 0 (G128: 128). Any grid is right; blockIdx.y
// counts groups of 8 tokens. Set by the build: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_*.toml)
//   WARPS   warps of a block
//   KW      warps that share the K of 16 rows
//   UNROLL  blocks that a warp requests at once
#if !defined(WARPS) || !defined(KW) || !defined(UNROLL)
#error "gemv/mma_small_batch: every tunable must be set by the build"
#endif
#include "mma.cuh"
#include "pdl.cuh"
#include "planes.cuh"
#include "warp.cuh"

static_assert(WARPS >= 1 && WARPS <= 32, "a block has 1024 threads at most");
static_assert(WARPS % KW == 0, "the warps of a block are whole groups of KW");

constexpr int THREADS = WARPS * WARP;
constexpr int ROWS = 16, TOKENS = 8;
constexpr int GROUPS = WARPS / KW;

// What a lane holds of one block of two rows, g and g + 8.
struct Piece {
    u32 codes[2][CODE_WORDS];
    u32 scale[2];
    u32 high[2];
};

__device__ __forceinline__ Piece load_piece(const Planes& p, const u32 (&first)[2], int b, int t) {
    Piece piece;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const u32 index = first[r] + b;
#pragma unroll
        for (int i = 0; i < CODE_WORDS; i++) {
            piece.codes[r][i] = load_weights_4(p.codes + (u64)index * (16 * CODE_WORDS) + 16 * i + 4 * t);
        }
        piece.high[r] = 0;
#if FORMAT == Q5_0
        piece.high[r] = load_weights_4(p.high + (u64)index * 4);
#endif
#if FORMAT == Q4_1
        piece.scale[r] = load_weights_4(p.scales + (u64)index * 4);
#else
        piece.scale[r] = load_weights_2(p.scales + (u64)(index / SCALE_BLOCKS) * 2);
#endif
    }
    return piece;
}

// Four codes of a piece as f16 pairs, less their offset: the first half of the block's columns, or the second.
__device__ __forceinline__ void fragments(const Piece& p, int r, int half, int t, u32& first, u32& second) {
#if FORMAT == Q8_0
    const u32 codes = p.codes[r][CODE_WORDS > 1 ? half : 0];
    first = f32_to_f16x2((float)(i8)(codes & 255u), (float)(i8)(codes >> 8 & 255u));
    second = f32_to_f16x2((float)(i8)(codes >> 16 & 255u), (float)(i8)(codes >> 24));
#else
    constexpr int OFFSET = FORMAT == Q5_0 ? 16 : FORMAT == Q4_1 ? 0 : 8;
    u32 codes = p.codes[r][0] >> (4 * half) & 0x0f0f0f0fu;
#if FORMAT == Q5_0
    codes |= (p.high[r] >> (t + 4 * half) & 0x01010101u) << 4;
#endif
    first = f32_to_f16x2((float)((int)(codes & 255u) - OFFSET), (float)((int)(codes >> 8 & 255u) - OFFSET));
    second = f32_to_f16x2((float)((int)(codes >> 16 & 255u) - OFFSET), (float)((int)(codes >> 24) - OFFSET));
#endif
    (void)t;
}

// The activations that meet word t of a block: two f16 pairs for each half. `x` is the token's row.
__device__ __forceinline__ void activation_fragments(const u8* x, int b, int t, u32 (&low)[2], u32 (&high)[2]) {
#if FORMAT == G128
    // Byte j of the word holds columns 8 t + 2 j and one more: lower nibbles meet the even ones.
    uint4 v = load_16(x + (b * 32 + 8 * t) * 2);
    low[0] = __byte_perm(v.x, v.y, 0x5410);
    low[1] = __byte_perm(v.z, v.w, 0x5410);
    high[0] = __byte_perm(v.x, v.y, 0x7632);
    high[1] = __byte_perm(v.z, v.w, 0x7632);
#else
    uint2 a = load_8(x + (b * 32 + 4 * t) * 2), c = load_8(x + (b * 32 + 16 + 4 * t) * 2);
    low[0] = a.x;
    low[1] = a.y;
    high[0] = c.x;
    high[1] = c.y;
#endif
}

// Adds the product of 16 rows by 16 columns with 8 tokens: columns in two pairs a lane.
__device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    u32 front[2] = {a[0], a[1]}, back[2] = {a[2], a[3]};
    mma_f16_k8(d, front, b[0]);
    mma_f16_k8(d, back, b[1]);
#else
    mma_f16_k16(d, a, b);
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_mma_small_batch(const u8* __restrict__ W,  // planes of [N, K/32]
                     const u8* x,               // [M, K] f16
                     float* y,                  // [M, N]
                     int N, int K, int M) {
    __shared__ float partial[WARPS][ROWS * TOKENS];
    const int n_blocks = K / 32;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int g = lane / 4, t = lane % 4;
    const int token0 = blockIdx.y * TOKENS;
    const bool has_token = token0 + g < M;
    const u8* row_x = x + (i64)(has_token ? token0 + g : token0) * K * 2;
    const Planes planes = planes_of(W, N, K);
    pdl_launch();
    bool waited = false;
    for (int first_tile = blockIdx.x * GROUPS; first_tile * ROWS < N; first_tile += gridDim.x * GROUPS) {
        const int row0 = (first_tile + warp / KW) * ROWS;
        const u32 first[2] = {(u32)min(row0 + g, N - 1) * n_blocks, (u32)min(row0 + g + 8, N - 1) * n_blocks};
        float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int b0 = warp % KW; b0 < n_blocks; b0 += KW * UNROLL) {
            Piece pieces[UNROLL];
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                if (b0 + u * KW < n_blocks) pieces[u] = load_piece(planes, first, b0 + u * KW, t);
            }
            if (!waited) {
                pdl_wait();
                waited = true;
            }
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                const int b = b0 + u * KW;
                if (b < n_blocks) {
                    u32 xs[2][2] = {{0, 0}, {0, 0}};
                    if (has_token) activation_fragments(row_x, b, t, xs[0], xs[1]);
                    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        u32 a[4];
                        fragments(pieces[u], 0, half, t, a[0], a[2]);
                        fragments(pieces[u], 1, half, t, a[1], a[3]);
                        multiply(d, a, xs[half]);
                    }
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        sums[i] = fmaf(f16_to_f32((u16)(pieces[u].scale[i / 2] & 0xffffu)), d[i], sums[i]);
                    }
#if FORMAT == Q4_1
                    // The minimum meets the sum of the activations: a product with ones.
                    float flat[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                    const u32 ones[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
                    multiply(flat, ones, xs[0]);
                    multiply(flat, ones, xs[1]);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        sums[i] = fmaf(f16_to_f32((u16)(pieces[u].scale[i / 2] >> 16)), flat[i], sums[i]);
                    }
#endif
                }
            }
        }
        if (!waited) {
            pdl_wait();
            waited = true;
        }
        // Element (row, token) of the tile, as the fragment of a sum has them.
#pragma unroll
        for (int i = 0; i < 4; i++) partial[warp][(g + i / 2 * 8) * TOKENS + 2 * t + i % 2] = sums[i];
        __syncthreads();
        for (int i = threadIdx.x; i < GROUPS * ROWS * TOKENS; i += THREADS) {
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < KW; k++) sum += partial[i / (ROWS * TOKENS) * KW + k][i % (ROWS * TOKENS)];
            const int row = first_tile * ROWS + i / TOKENS, token = token0 + i % TOKENS;
            if (row < N && token < M) y[(i64)token * N + row] = sum;
        }
        // The next tile writes the same partial sums.
        __syncthreads();
    }
}
