// The frame of the fused matvecs of a decoded token: rows in tiles, weights requested ahead, activations in shared memory.
//
//   WARPS     warps in a block
//   LPR       lanes that share a row; 32 / LPR groups of lanes in a warp
//   KW        warps that share the columns of a row; their sums meet in shared memory
//   RPL       rows of a lane group, which share every load of activations
//   UNROLL    units (16 bytes of codes with what belongs to them) that a lane takes of each of its rows in a round
//   PREFETCH  rounds that are under way while one is multiplied: 0 or 1
//
// A tile is TILE_ROWS rows; a block strides over tiles, so that any grid is right, and requests the first round of its next
// tile before it ends the present one. The kernel says which row of the matrix is row `i` of a tile. Before the wait for the
// kernel ahead, 1 + PREFETCH rounds of weights are under way. Sums are taken in a fixed order: results repeat bit for bit.
#ifndef EDGELLM_DECODE_FRAME_CUH
#define EDGELLM_DECODE_FRAME_CUH

#include "decode/weights.cuh"
#include "pdl.cuh"
#include "warp.cuh"

#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH)
#error "the frame of decode kernels needs WARPS, LPR, KW, RPL, UNROLL and PREFETCH set by the build"
#endif
static_assert(LPR == 4 || LPR == 8 || LPR == 16 || LPR == 32, "a row has 4, 8, 16 or 32 lanes");
static_assert(WARPS % KW == 0 && WARPS * WARP <= 1024, "the warps of a block share rows evenly");
static_assert(RPL <= LPR, "a lane ends at most one row");
static_assert(PREFETCH == 0 || PREFETCH == 1, "PREFETCH is a switch");

constexpr int THREADS = WARPS * WARP;
// Below sm_80 addresses take more registers and few bytes in flight are enough: a block takes what it needs rather than spill.
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define FRAME_BOUNDS __launch_bounds__(THREADS, 1)
#else
#define FRAME_BOUNDS __launch_bounds__(THREADS)
#endif
constexpr int GROUPS_PER_WARP = WARP / LPR;
constexpr int TILE_ROWS = WARPS / KW * GROUPS_PER_WARP * RPL;
// Units of a row between two that a lane takes, and units of a row in a round.
constexpr int STEP = LPR * KW;
constexpr int ROUND_UNITS = STEP * UNROLL;
// Floats of shared memory in which the sums of a tile meet. There are two sets, used in turn: a tile's may still be read
// when the next one's are written.
constexpr int PART_FLOATS = 2 * KW * TILE_ROWS;

struct Round {
    Weights::Fragment w[RPL][UNROLL];
};

// What this lane requests: round after round, tile after tile.
template <class RowOf>
struct Reader {
    const Weights::Row planes;
    const RowOf row_of;
    const int units, tiles, group, mine;
    int tile, base;
    int first[RPL];

    __device__ __forceinline__ Reader(const u8* W, int N, int K, int tiles, RowOf row_of)
        : planes(Weights::row(W, N, K, 0)), row_of(row_of), units(Weights::units(K)), tiles(tiles),
          group(threadIdx.x / WARP / KW * GROUPS_PER_WARP + threadIdx.x % WARP / LPR),
          mine(threadIdx.x / WARP % KW * LPR + threadIdx.x % LPR), tile(blockIdx.x), base(0) {
        enter();
    }

    __device__ __forceinline__ void enter() {
#pragma unroll
        for (int r = 0; r < RPL; ++r) first[r] = row_of(min(tile, tiles - 1), group * RPL + r) * units + mine;
    }

    __device__ __forceinline__ void request(Round& round) {
        const bool within = tile < tiles;
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int at = base + u * STEP;
#pragma unroll
            for (int r = 0; r < RPL; ++r) {
                if (within && at + mine < units) round.w[r][u] = Weights::load(planes, first[r] + at);
                else round.w[r][u] = Weights::nothing();
            }
        }
        base += ROUND_UNITS;
        if (base >= units) {
            base = 0;
            tile += gridDim.x;
            enter();
        }
    }
};

// Adds a round's products. WHOLE: all of its units exist.
template <bool WHOLE, class RowOf, class Stage>
__device__ __forceinline__ void multiply(const Round& round, int base, const Reader<RowOf>& reader, const Stage& stage,
                                         float (&sums)[RPL]) {
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
        const int unit = base + u * STEP + reader.mine;
        if (WHOLE || unit < reader.units) {
            const Weights::Activations a = stage.load(unit);
#pragma unroll
            for (int r = 0; r < RPL; ++r) sums[r] += Weights::dot(round.w[r][u], a);
        }
    }
}

// The sums of the lanes of every row, in all of them.
__device__ __forceinline__ void sum_lanes(float (&sums)[RPL]) {
#pragma unroll
    for (int r = 0; r < RPL; ++r) sums[r] = warp_sum_over<1, LPR>(sums[r]);
}

// Runs the tiles of this block. Every thread of every block must call it.
//
//   row_of(tile, i)         the row of the matrix that is row i of a tile: one that exists, for any i below TILE_ROWS
//   stage.early()           reads constants; what it loads is under way during the wait
//   prepare(tile)           loads what ends a tile, such as a residual; called after the wait and before the product
//   stage.late()            fills the slab of activations in shared memory, up to and with the barrier
//   stage.load(unit)        the activations of a unit
//   finish(tile, turn, sums, prepared)
template <class RowOf, class Stage, class Prepare, class Finish>
__device__ __forceinline__ void each_tile(const u8* W, int N, int K, int tiles, RowOf row_of, Stage& stage, Prepare prepare,
                                          Finish finish) {
    Reader<RowOf> reader(W, N, K, tiles, row_of);
    Round now;
    reader.request(now);
#if PREFETCH
    Round next;
    reader.request(next);
#endif
    stage.early();
    // The condition always holds, and nothing knows it: the wait stands in a basic block of its own, as ptxas is free to
    // move loads through the read-only path behind a wait in theirs.
    if (K > 0) pdl_wait();
    auto prepared = prepare(blockIdx.x);
    stage.late();
    int turn = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        if (turn > 0) prepared = prepare(tile);
        float sums[RPL];
#pragma unroll
        for (int r = 0; r < RPL; ++r) sums[r] = 0.0f;
        for (int base = 0; base < reader.units; base += ROUND_UNITS) {
            // A round that lies within the row has no branch that keeps its units apart.
            if (base + ROUND_UNITS <= reader.units) multiply<true>(now, base, reader, stage, sums);
            else multiply<false>(now, base, reader, stage, sums);
#if PREFETCH
            now = next;
            reader.request(next);
#else
            reader.request(now);
#endif
        }
        sum_lanes(sums);
        finish(tile, turn, sums, prepared);
        ++turn;
    }
}

// The row of a tile whose sum `own_sum` gives to this thread; none where it is -1.
__device__ __forceinline__ int own_row() {
    const int thread = threadIdx.x, lane = thread % WARP;
    if (KW > 1) return thread < TILE_ROWS ? thread : -1;
    return lane % LPR < RPL ? (thread / WARP * GROUPS_PER_WARP + lane / LPR) * RPL + lane % LPR : -1;
}

// Puts the sums of a tile into shared memory for `row_sum`, up to and with the barrier.
__device__ __forceinline__ const float* put_sums(const float (&sums)[RPL], float* part, int turn) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    part += turn % 2 * (KW * TILE_ROWS);
    if (lane % LPR == 0) {
        float* const to = part + warp % KW * TILE_ROWS + (warp / KW * GROUPS_PER_WARP + lane / LPR) * RPL;
#pragma unroll
        for (int r = 0; r < RPL; ++r) to[r] = sums[r];
    }
    __syncthreads();
    return part;
}

__device__ __forceinline__ float row_sum(const float* part, int row) {
    float sum = part[row];
#pragma unroll
    for (int k = 1; k < KW; ++k) sum += part[k * TILE_ROWS + row];
    return sum;
}

// The sum of this thread's own row. Needs no barrier where no warps share a row.
__device__ __forceinline__ float own_sum(const float (&sums)[RPL], float* part, int turn) {
#if KW > 1
    const float* const met = put_sums(sums, part, turn);
    return (int)threadIdx.x < TILE_ROWS ? row_sum(met, threadIdx.x) : 0.0f;
#else
    (void)part;
    (void)turn;
    float mine = sums[0];
#pragma unroll
    for (int r = 1; r < RPL; ++r)
        if (threadIdx.x % LPR == r) mine = sums[r];
    return mine;
#endif
}

#endif
