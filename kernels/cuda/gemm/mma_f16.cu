// gemm / mma_f16: y = W x (+ r) for many tokens on tensor cores, weights decoded to f16 in registers.
//
//   W  planes of [N, K], or its floats     x  f16 [M, K]     r  f32 [M, N], null, or y     y  f32 [M, N]
//
// A block holds TILE_M tokens by WARPS / KW * RT * 16 rows; a warp holds all of the tokens by RT tiles of 16 rows, so that each
// weight is decoded once in a block and never passes through shared memory. Weights are the A operand, tokens the columns of
// B. The order of K in a product is free as long as both agree: in each step of 64 columns lane (g, t) takes unit t of rows g
// and g + 8 (gemm/weights.cuh), 16 weights that lie together, and the activations of token g that meet them are two runs of 16
// bytes, each the B fragments of two instructions as it stands. Those come from a ring of tiles in shared memory, in which
// the chunks of every other token are exchanged, so that the lanes of a quarter warp meet 8 different groups of banks. Weights
// are requested DEPTH turns ahead, tiles STAGES - 1. Blocks that share rows of W run together. KW warps share the columns
// of their rows, a step each in every turn, and meet in shared memory: for matrices of few rows and tokens.
//
// K % 32 == 0. Set by the build: FORMAT, and ASYNC: whether tiles arrive by cp.async (sm_80 on), or through registers.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemm.toml)
//   TILE_M  tokens of a block
//   RT      tiles of 16 rows of a warp
//   WARPS   warps of a block
//   KW      warps that share the columns of their rows
//   STAGES  turns whose activations are in the ring
//   DEPTH   turns that weights are requested ahead
//   BLOCKS  blocks that the registers of a multiprocessor must hold
#if !defined(TILE_M) || !defined(RT) || !defined(WARPS) || !defined(KW) || !defined(STAGES) || !defined(DEPTH) || \
    !defined(BLOCKS)
#error "gemm/mma_f16: every tunable must be set by the build"
#endif
#if !defined(ASYNC)
#error "gemm/mma_f16: ASYNC must be set by the build"
#endif
#include "gemm/weights.cuh"
#include "mma.cuh"
#include "pdl.cuh"
#if ASYNC
#include "async_copy.cuh"
#endif

static_assert(TILE_M % 16 == 0 && STAGES >= 2 && DEPTH >= 1, "tiles are whole fragments");

// Tiles of 8 tokens that are taken together: enough sums to have one under way while another waits.
#define TOGETHER (TILE_M >= 32 ? 4 : 2)

static_assert(WARPS % KW == 0, "the warps of a block are whole groups of KW");

#define THREADS (WARPS * WARP)
#define STEP 64
#define ROW_BYTES (STEP * 2)
#define TILE_BYTES (TILE_M * ROW_BYTES)
// What a turn takes: a step, and a tile, for each of KW warps.
#define TURN (STEP * KW)
#define TURN_BYTES (TILE_BYTES * KW)

// Sums of a lane.
#define SUMS (TILE_M / 8 * RT * 4)
static_assert((WARPS - WARPS / KW) * SUMS * WARP * 4 <= STAGES * TURN_BYTES, "the sums of a block fit where its tiles were");

// Where chunk `chunk` of 16 bytes of a row lies in a tile.
__device__ __forceinline__ int place(int row, int chunk) {
    // Run 0 of units 0 to 3 are chunks 0, 1, 4, 5, with Q8_0 chunks 0, 2, 4, 6: the next row has run 1 in their place.
    const int apart = Weights::run_at(0, 1) / 8;
    return row * ROW_BYTES + (chunk ^ (row % 2 * apart)) * 16;
}

// The part of a turn that a thread copies: one chunk of every LINES-th token.
#define LINES (THREADS / (8 * KW))
#define COPIES ((TILE_M + LINES - 1) / LINES)
static_assert(LINES % 2 == 0, "the chunks of all tokens of a thread lie in the same place");

struct Share {
    const u16* from;
    u32 to;
    int column, line, lines;
    u32 stride;
};

__device__ __forceinline__ Share share_of(const u16* x, int token0, int tokens, int K) {
    Share s;
    const int chunk = threadIdx.x % (8 * KW);
    s.line = threadIdx.x / (8 * KW);
    s.column = chunk * 8;
    s.from = x + (u64)(token0 + s.line) * K + s.column;
    s.to = chunk / 8 * TILE_BYTES + place(s.line, chunk % 8);
    // Tokens beyond the last stay as they are: their sums are their own and are not stored.
    s.lines = min(tokens, TILE_M) - s.line;
    s.stride = LINES * K;
    return s;
}

// Where the chunks of a turn start. Columns beyond the last are the first: they meet weights of zero.
__device__ __forceinline__ const u16* turn_of(const Share& s, int turn, int K) {
    return s.from + (turn * TURN + s.column < K ? turn * TURN : -s.column);
}

__device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    const u32 front[2] = {a[0], a[1]}, back[2] = {a[2], a[3]};
    mma_f16_k8(d, front, b[0]);
    mma_f16_k8(d, back, b[1]);
#else
    mma_f16_k16(d, a, b);
#endif
}

// What a lane holds of the weights of a step: rows g and g + 8 of each tile.
typedef Weights::Piece Pieces[RT][2];

// Requests the pieces that lie `unit` units behind the first ones of their rows; nothing where the row has ended.
__device__ __forceinline__ void load_pieces(Pieces& to, const Weights::Base& base, const u32 (&first)[RT][2], int unit,
                                            bool within) {
#pragma unroll
    for (int n = 0; n < RT; ++n) {
        to[n][0] = within ? Weights::load(base, first[n][0] + unit) : Weights::nothing();
        to[n][1] = within ? Weights::load(base, first[n][1] + unit) : Weights::nothing();
    }
}

__device__ __forceinline__ void copy_pieces(Pieces& to, const Pieces& from) {
#pragma unroll
    for (int n = 0; n < RT; ++n) {
        to[n][0] = from[n][0];
        to[n][1] = from[n][1];
    }
}

// The two halves of a step: run RUN of every unit, 32 columns.
template <int RUN>
__device__ __forceinline__ void multiply_run(float (&sums)[TILE_M / 8][RT][4], const Pieces& pieces, const u8* tile, int lane,
                                             int tokens) {
    const int g = lane / 4, t = lane % 4;
    u32 w[RT][2][4];
#pragma unroll
    for (int n = 0; n < RT; ++n) {
        Weights::expand<RUN>(pieces[n][0], t % 2, w[n][0]);
        Weights::expand<RUN>(pieces[n][1], t % 2, w[n][1]);
    }
    // Eight tokens on, a row of the tile starts in the same bank.
    tile += place(g, Weights::run_at(t, RUN) / 8);
#pragma unroll
    for (int some = 0; some < TILE_M / 8; some += TOGETHER) {
        if (some * 8 < tokens) {
            uint4 x[TOGETHER];
#pragma unroll
            for (int m = 0; m < TOGETHER; ++m) x[m] = *(const uint4*)(tile + (some + m) * (8 * ROW_BYTES));
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int m = 0; m < TOGETHER; ++m) {
                    const u32 b[2] = {half == 0 ? x[m].x : x[m].z, half == 0 ? x[m].y : x[m].w};
#pragma unroll
                    for (int n = 0; n < RT; ++n) {
                        const u32 a[4] = {w[n][0][half * 2], w[n][1][half * 2], w[n][0][half * 2 + 1], w[n][1][half * 2 + 1]};
                        multiply(sums[some + m][n], a, b);
                    }
                }
            }
        }
    }
}

#if ASYNC
__device__ __forceinline__ void copy_tile(const Share& s, u8* tile, int turn, int K) {
    const u16* at = turn_of(s, turn, K);
#pragma unroll
    for (int h = 0; h < COPIES; ++h) {
        if (h * LINES < s.lines) copy_async_16(tile + s.to + h * (LINES * ROW_BYTES), at + (u64)s.stride * h);
    }
}
#else
__device__ __forceinline__ void load_tile(const Share& s, uint4 (&held)[COPIES], int turn, int K) {
    const u16* at = turn_of(s, turn, K);
#pragma unroll
    for (int h = 0; h < COPIES; ++h) {
        if (h * LINES < s.lines) held[h] = load_16(at + (u64)s.stride * h);
    }
}

__device__ __forceinline__ void store_tile(const Share& s, const uint4 (&held)[COPIES], u8* tile) {
#pragma unroll
    for (int h = 0; h < COPIES; ++h) {
        if (h * LINES < s.lines) *(uint4*)(tile + s.to + h * (LINES * ROW_BYTES)) = held[h];
    }
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gemm_mma_f16(const u8* W,     // planes of [N, K], or its floats
             const u16* x,    // [M, K]
             const float* r,  // [M, N] or null
             float* y,        // [M, N]
             int N, int K, int M) {
    DYNAMIC_SHARED(tiles);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const int token0 = blockIdx.x * TILE_M, tokens = M - token0;
    const int group = warp / KW, of_turn = warp % KW;
    const int row0 = (blockIdx.y * (WARPS / KW) + group) * (RT * 16);
    // The units of this lane: one of each turn.
    const int units = K / 16, turns = ceil_div(K, TURN), own = of_turn * 4 + t;
    const bool active = row0 < N;
    const Weights::Base base = Weights::base(W, N, K);
    u32 first[RT][2];
#pragma unroll
    for (int n = 0; n < RT; ++n) {
        first[n][0] = (u32)min(row0 + n * 16 + g, N - 1) * units + own;
        first[n][1] = (u32)min(row0 + n * 16 + g + 8, N - 1) * units + own;
    }
    pdl_launch();

    Pieces ahead[DEPTH];
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) load_pieces(ahead[d], base, first, d * (TURN / 16), d * (TURN / 16) + own < units);
    pdl_wait();
    const Share share = share_of(x, token0, tokens, K);
    // Where the tiles of the turn start in the ring.
    u32 ring = 0;
#if ASYNC
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < turns) copy_tile(share, tiles + s * TURN_BYTES, s, K);
        copy_async_commit();
    }
#else
    uint4 held[COPIES];
    load_tile(share, held, 0, K);
    store_tile(share, held, tiles);
#endif

    float sums[TILE_M / 8][RT][4];
#pragma unroll
    for (int m = 0; m < TILE_M / 8; ++m) {
#pragma unroll
        for (int n = 0; n < RT; ++n) sums[m][n][0] = sums[m][n][1] = sums[m][n][2] = sums[m][n][3] = 0.0f;
    }

    for (int turn = 0; turn < turns; ++turn) {
        // Behind this barrier the tiles of this turn are there, and nobody reads those of the turn before, which are overwritten.
#if ASYNC
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        const u32 behind = ring == 0 ? (STAGES - 1) * TURN_BYTES : ring - TURN_BYTES;
        if (turn + STAGES - 1 < turns) copy_tile(share, tiles + behind, turn + STAGES - 1, K);
        // An empty group too, so that the wait counts turns.
        copy_async_commit();
#else
        __syncthreads();
        if (turn + 1 < turns) load_tile(share, held, turn + 1, K);
#endif
        Pieces pieces;
        copy_pieces(pieces, ahead[0]);
#pragma unroll
        for (int d = 1; d < DEPTH; ++d) copy_pieces(ahead[d - 1], ahead[d]);
        const int unit = (turn + DEPTH) * (TURN / 16);
        load_pieces(ahead[DEPTH - 1], base, first, unit, unit + own < units);
        if (active) {
            const u8* tile = tiles + ring + of_turn * TILE_BYTES;
            multiply_run<0>(sums, pieces, tile, lane, tokens);
            multiply_run<1>(sums, pieces, tile, lane, tokens);
        }
        ring = ring == (STAGES - 1) * TURN_BYTES ? 0 : ring + TURN_BYTES;
#if !ASYNC
        if (turn + 1 < turns) store_tile(share, held, tiles + ring);
#endif
    }

#if KW > 1
    // The sums of the other warps of a group, added in their order, where the tiles were.
    float* parts = (float*)tiles;
    __syncthreads();
    if (of_turn > 0) {
        float* mine = parts + (group * (KW - 1) + of_turn - 1) * (SUMS * WARP) + lane;
#pragma unroll
        for (int i = 0; i < SUMS; ++i) mine[i * WARP] = sums[i / (4 * RT)][i / 4 % RT][i % 4];
    }
    __syncthreads();
    if (of_turn > 0) return;
#pragma unroll
    for (int part = 0; part < KW - 1; ++part) {
        const float* other = parts + (group * (KW - 1) + part) * (SUMS * WARP) + lane;
#pragma unroll
        for (int i = 0; i < SUMS; ++i) sums[i / (4 * RT)][i / 4 % RT][i % 4] += other[i * WARP];
    }
#endif

    // Two tokens by two rows a lane; eight lanes store 32 neighbouring bytes. Each element of y is written by the thread that
    // read its residual.
#pragma unroll
    for (int m = 0; m < TILE_M / 8; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int token = m * 8 + t * 2 + i;
            if (token >= tokens) continue;
            const u64 line = (u64)(token0 + token) * N;
#pragma unroll
            for (int n = 0; n < RT; ++n) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int row = row0 + n * 16 + half * 8 + g;
                    const float v = sums[m][n][half * 2 + i];
                    if (row < N) y[line + row] = r != nullptr ? r[line + row] + v : v;
                }
            }
        }
    }
}
