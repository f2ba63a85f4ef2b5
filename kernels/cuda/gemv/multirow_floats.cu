// gemv / multirow_floats: y = W x for weights that are floats themselves, 16-byte loads, a warp per few rows (V31).
//
//   W  f16, bf16 or f32  [N, K], row-major     x  f32  [M, K]     y  f32  [M, N]
//
// KW warps share the K of RPL rows and meet in shared memory. UNROLL vectors of each row are requested before any is
// used, the first of them before the wait. Sums in f32 in a fixed order. Needs K % 32 == 0. Any grid is right.
// Set by the build: FORMAT (F16, BF16 or F32).
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_f*.toml)
//   WARPS   warps of a block
//   KW      warps that share the K of a row
//   RPL     rows of a warp, which share each load of activations
//   UNROLL  vectors of each row that a lane requests at once
#if !defined(WARPS) || !defined(KW) || !defined(RPL) || !defined(UNROLL)
#error "gemv/multirow_floats: every tunable must be set by the build"
#endif
#include "format.cuh"
#include "pdl.cuh"
#include "warp.cuh"

static_assert(FORMAT == F16 || FORMAT == BF16 || FORMAT == F32, "weights are floats");
static_assert(WARPS >= 1 && WARPS <= 32, "a block has 1024 threads at most");
static_assert(WARPS % KW == 0, "the warps of a block are whole groups of KW");

constexpr int THREADS = WARPS * WARP;
constexpr int BYTES = FORMAT == F32 ? 4 : 2;
// Weights in 16 bytes.
constexpr int VECTOR = 16 / BYTES;
constexpr int STEP = WARP * KW;
constexpr int TILE_ROWS = WARPS / KW * RPL;

struct Round {
    uint4 v[UNROLL][RPL];
};

__device__ __forceinline__ void request(Round& round, const u8* const (&rows)[RPL], int first, int vectors) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
#pragma unroll
        for (int r = 0; r < RPL; r++) {
            int at = first + u * STEP;
            round.v[u][r] = at < vectors ? load_weights_16(rows[r] + (i64)at * 16) : make_uint4(0, 0, 0, 0);
        }
    }
}

// Two weights of a word (one for f32).
__device__ __forceinline__ float add_word(u32 word, const float* x, float sum) {
#if FORMAT == F32
    return fmaf(__uint_as_float(word), x[0], sum);
#elif FORMAT == F16
    float2 w = f16x2_to_f32(word);
    return fmaf(w.y, x[1], fmaf(w.x, x[0], sum));
#else
    return fmaf(__uint_as_float(word & 0xffff0000u), x[1], fmaf(__uint_as_float(word << 16), x[0], sum));
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_multirow_floats(const u8* __restrict__ W,  // [N, K]
                     const float* x,            // [M, K]
                     float* y,                  // [M, N]
                     int N, int K, int M) {
    __shared__ float partial[WARPS][RPL];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int vectors = K / VECTOR;
    const int v_first = warp % KW * WARP + lane;
    x += (i64)blockIdx.y * K;
    y += (i64)blockIdx.y * N;
    pdl_launch();
    bool waited = false;
    for (int tile = blockIdx.x; tile < ceil_div(N, TILE_ROWS); tile += gridDim.x) {
        const int row0 = tile * TILE_ROWS + warp / KW * RPL;
        const u8* rows[RPL];
#pragma unroll
        for (int r = 0; r < RPL; r++) rows[r] = W + (i64)min(row0 + r, N - 1) * K * BYTES;
        Round round;
        request(round, rows, v_first, vectors);
        if (!waited) {
            pdl_wait();
            waited = true;
        }
        float sums[RPL];
#pragma unroll
        for (int r = 0; r < RPL; r++) sums[r] = 0.0f;
        for (int first = v_first; first < vectors; first += UNROLL * STEP) {
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                int at = first + u * STEP;
                if (at < vectors) {
                    float held[VECTOR];
#pragma unroll
                    for (int i = 0; i < VECTOR; i += 4) {
                        uint4 v = load_16(x + at * VECTOR + i);
                        held[i] = __uint_as_float(v.x);
                        held[i + 1] = __uint_as_float(v.y);
                        held[i + 2] = __uint_as_float(v.z);
                        held[i + 3] = __uint_as_float(v.w);
                    }
#pragma unroll
                    for (int r = 0; r < RPL; r++) {
                        uint4 w = round.v[u][r];
                        sums[r] = add_word(w.x, held, sums[r]);
                        sums[r] = add_word(w.y, held + VECTOR / 4, sums[r]);
                        sums[r] = add_word(w.z, held + VECTOR / 2, sums[r]);
                        sums[r] = add_word(w.w, held + VECTOR / 4 * 3, sums[r]);
                    }
                }
            }
            if (first + UNROLL * STEP < vectors) request(round, rows, first + UNROLL * STEP, vectors);
        }
#pragma unroll
        for (int r = 0; r < RPL; r++) sums[r] = warp_sum(sums[r]);
        if (lane == 0) {
#pragma unroll
            for (int r = 0; r < RPL; r++) partial[warp][r] = sums[r];
        }
        __syncthreads();
        for (int i = threadIdx.x; i < TILE_ROWS; i += THREADS) {
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < KW; k++) sum += partial[i / RPL * KW + k][i % RPL];
            if (tile * TILE_ROWS + i < N) y[tile * TILE_ROWS + i] = sum;
        }
        // The next tile writes the same partial sums.
        __syncthreads();
    }
}
