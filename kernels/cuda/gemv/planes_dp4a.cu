// gemv / planes_dp4a: y = W x with int8 activations, a group of lanes per few rows, one 16-byte load of codes a block.
//
//   W  planes  [N, K/32] blocks (include/planes.cuh)     x  a8/32  [M] slabs     y  f32  [M, N]
//
// LPR lanes stand side by side over K and share RPL rows, so that activations are fetched once for RPL blocks. KW
// warps split K further and meet in shared memory. UNROLL blocks per row are requested before any is used, the first of
// them before the wait for the kernel in front: bytes in flight are what bounds this kernel, not arithmetic. With
// PREFETCH the next round is requested before the present one is multiplied.
//
// A block of threads serves whole row tiles and strides over them, so any grid is right. Sums in f32 in a fixed order.
// Needs K % 32 == 0. Format: FORMAT. Designs V19, V5 (PREFETCH).
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_*.toml)
//   WARPS     warps of a block
//   LPR       lanes side by side over K: 8, 16 or 32
//   KW        warps that share the K of a row
//   RPL       rows that a lane multiplies with the activations it holds
//   UNROLL    blocks of each row that a lane requests at once
//   PREFETCH  0 or 1: request the next round first
//   XSTAGE    0: activations through L1, 1: copied to shared memory
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || \
    !defined(PREFETCH) || !defined(XSTAGE)
#error "gemv/planes_dp4a: every tunable must be set by the build"
#endif
#include "pdl.cuh"
#include "planes.cuh"
#include "warp.cuh"

static_assert(WARPS >= 1 && WARPS <= 32, "a block has 1024 threads at most");
static_assert(LPR == 8 || LPR == 16 || LPR == 32, "lanes over K divide a warp");
static_assert(WARPS % KW == 0, "the warps of a block are whole groups of KW");
static_assert(PREFETCH == 0 || PREFETCH == 1, "PREFETCH is a switch");
static_assert(XSTAGE == 0 || XSTAGE == 1, "XSTAGE is a switch");

constexpr int THREADS = WARPS * WARP;
// Rows that the lanes of a warp serve, and rows of a tile.
constexpr int WARP_ROWS = WARP / LPR * RPL;
constexpr int TILE_ROWS = WARPS / KW * WARP_ROWS;
// Blocks of a row between two rounds of one lane.
constexpr int STEP = LPR * KW;

struct Round {
    Block blocks[UNROLL][RPL];
};

// Requests a round's blocks; beyond K there is nothing, beyond N the last row is read again and dropped at the end.
__device__ __forceinline__ void request(Round& round, const Planes& planes, const u32 (&first)[RPL], int b, int n_blocks) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
#pragma unroll
        for (int r = 0; r < RPL; r++) {
            int at = b + u * STEP;
            round.blocks[u][r] = at < n_blocks ? load_block(planes, first[r] + at) : no_block();
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_planes_dp4a(const u8* __restrict__ W,  // planes of [N, K/32]
                 const u8* x,               // [M] slabs of a8/32
                 float* y,                  // [M, N]
                 int N, int K, int M) {
    __shared__ float partial[WARPS][WARP_ROWS];
    DYNAMIC_SHARED(staged);
    const int n_blocks = K / 32;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int k_warp = warp % KW, row_warp = warp / KW;
    const int row_group = lane / LPR;
    const int b_first = k_warp * LPR + lane % LPR;
    const Planes planes = planes_of(W, N, K);
    const int tiles = ceil_div(N, TILE_ROWS);
    x += (i64)blockIdx.y * activation_stride(K);
    y += (i64)blockIdx.y * N;
    pdl_launch();

    bool waited = false;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int row0 = tile * TILE_ROWS + (row_warp * (WARP / LPR) + row_group) * RPL;
        u32 first[RPL];
#pragma unroll
        for (int r = 0; r < RPL; r++) first[r] = (u32)min(row0 + r, N - 1) * n_blocks;
        Round now;
        request(now, planes, first, b_first, n_blocks);
        if (!waited) {
            pdl_wait();
            waited = true;
            if (XSTAGE) {
                for (int i = threadIdx.x; i < activation_stride(K) / 16; i += THREADS) {
                    *(uint4*)(staged + i * 16) = load_16(x + i * 16);
                }
                __syncthreads();
            }
        }
        const u8* slab = XSTAGE ? (const u8*)staged : x;
        float sums[RPL];
#pragma unroll
        for (int r = 0; r < RPL; r++) sums[r] = 0.0f;
        for (int b = b_first; b < n_blocks; b += UNROLL * STEP) {
#if PREFETCH
            Round next;
            request(next, planes, first, b + UNROLL * STEP, n_blocks);
#endif
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                int at = b + u * STEP;
                if (at < n_blocks) {
                    Activations a = load_activations(slab, K, at);
#pragma unroll
                    for (int r = 0; r < RPL; r++) sums[r] = block_add(now.blocks[u][r], a, sums[r]);
                }
            }
#if PREFETCH
            now = next;
#else
            if (b + UNROLL * STEP < n_blocks) request(now, planes, first, b + UNROLL * STEP, n_blocks);
#endif
        }
#pragma unroll
        for (int r = 0; r < RPL; r++) sums[r] = warp_sum_over<1, LPR>(sums[r]);
        if (KW == 1) {
            if (lane % LPR == 0) {
#pragma unroll
                for (int r = 0; r < RPL; r++) {
                    if (row0 + r < N) y[row0 + r] = sums[r];
                }
            }
        } else {
            if (lane % LPR == 0) {
#pragma unroll
                for (int r = 0; r < RPL; r++) partial[warp][row_group * RPL + r] = sums[r];
            }
            __syncthreads();
            for (int i = threadIdx.x; i < TILE_ROWS; i += THREADS) {
                float sum = 0.0f;
#pragma unroll
                for (int k = 0; k < KW; k++) sum += partial[i / WARP_ROWS * KW + k][i % WARP_ROWS];
                int row = tile * TILE_ROWS + i;
                if (row < N) y[row] = sum;
            }
            // The next tile writes the same partial sums.
            __syncthreads();
        }
    }
}
