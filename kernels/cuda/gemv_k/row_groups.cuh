// The frame of every one-shot dp4a matvec here: groups of lanes own rows, and all of a turn's weights are asked for
// before the first is used.
//
//   LPR    lanes that share a row; 32 / LPR groups of lanes in a warp
//   KW     warps that share the columns of a row; their sums meet in shared memory
//   RPL    rows of a lane group, which share every load of activations
//   UNROLL units a lane takes of each of its rows per turn; the loads of a turn are all under way together
//   WARPS  warps in a block
//
// A Format says what a unit is (16 bytes of codes with what belongs to them) and how to multiply it:
//
//   struct Fragment        a unit of weights in registers       struct Activations   what meets it
//   struct Row             where a row's planes start
//   Row row(W, N, K, row)  int units(K)
//   Fragment load(Row, unit)     Fragment nothing()             Activations activations(x, K, unit)
//   float dot(Fragment, Activations)
//
// Sums are taken in a fixed order, so results repeat bit for bit. PDL: the first turn's weights are requested before the
// wait, activations after it.
#ifndef EDGELLM_ROW_GROUPS_CUH
#define EDGELLM_ROW_GROUPS_CUH

#include "dialect.cuh"
#include "pdl.cuh"
#include "warp.cuh"

#if !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(WARPS)
#error "a kernel of row groups needs LPR, KW, RPL, UNROLL and WARPS set by the build"
#endif
static_assert(LPR == 4 || LPR == 8 || LPR == 16 || LPR == 32, "a row has 4, 8, 16 or 32 lanes");
static_assert(WARPS % KW == 0 && WARPS * WARP <= 1024, "the warps of a block share rows evenly");

#define GROUPS_PER_WARP (WARP / LPR)
#define ROW_SETS (WARPS / KW)
#define ROWS_PER_BLOCK (ROW_SETS * GROUPS_PER_WARP * RPL)

// Bytes from one token's a8/32 slab to the next.
__device__ __forceinline__ int a8_stride(int K) {
    return (K + K / 32 * 8 + 15) / 16 * 16;
}

// The products of this lane group's rows, summed over its lanes but not yet over the warps that share them. `first` is the
// first row of the block.
template <class Format>
__device__ __forceinline__ void dot_row_groups(float (&sums)[RPL], const u8* W, const u8* x, int N, int K, int first) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int group = (warp / KW) * GROUPS_PER_WARP + lane / LPR;
    const int units = Format::units(K);
    constexpr int STEP = LPR * KW;

    typename Format::Row rows[RPL];
#pragma unroll
    for (int r = 0; r < RPL; ++r) {
        // Rows past the end repeat the last one: the loads stay legal and the result is not stored.
        rows[r] = Format::row(W, N, K, min(first + group * RPL + r, N - 1));
        sums[r] = 0.0f;
    }
    const int mine = (warp % KW) * LPR + lane % LPR;
    for (int base = 0; base < units; base += STEP * UNROLL) {
        typename Format::Fragment w[RPL][UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int unit = base + u * STEP + mine;
#pragma unroll
            for (int r = 0; r < RPL; ++r) {
                if (unit < units) w[r][u] = Format::load(rows[r], unit);
                else w[r][u] = Format::nothing();
            }
        }
        if (base == 0) pdl_wait();
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int unit = base + u * STEP + mine;
            if (unit < units) {
                const typename Format::Activations a = Format::activations(x, K, unit);
#pragma unroll
                for (int r = 0; r < RPL; ++r) sums[r] += Format::dot(w[r][u], a);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < RPL; ++r) sums[r] = warp_sum_over<1, LPR>(sums[r]);
}

// Floats of shared memory in which the warps of a row meet. The kernel declares them: a template cannot, for the emulator.
#define PART_FLOATS (KW == 1 ? 1 : WARPS * GROUPS_PER_WARP * RPL)

// Hands every row's sum to one thread: `use(row within the block, sum)`. `part` is shared memory of PART_FLOATS.
template <class Use>
__device__ __forceinline__ void each_row(const float (&sums)[RPL], float* part, Use use) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#if KW == 1
    (void)part;
    const int group = warp * GROUPS_PER_WARP + lane / LPR;
    // The sum is in every lane of the group; lane r stores row r where there are enough lanes.
    if (RPL <= LPR) {
        float mine = sums[0];
#pragma unroll
        for (int r = 1; r < RPL; ++r)
            if (lane % LPR == r) mine = sums[r];
        if (lane % LPR < RPL) use(group * RPL + lane % LPR, mine);
    } else if (lane % LPR == 0) {
#pragma unroll
        for (int r = 0; r < RPL; ++r) use(group * RPL + r, sums[r]);
    }
#else
    constexpr int OF_WARP = GROUPS_PER_WARP * RPL;
    if (lane % LPR == 0) {
#pragma unroll
        for (int r = 0; r < RPL; ++r) part[warp * OF_WARP + lane / LPR * RPL + r] = sums[r];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS_PER_BLOCK; i += WARPS * WARP) {
        const int set = i / OF_WARP, of = i % OF_WARP;
        float sum = part[set * KW * OF_WARP + of];
#pragma unroll
        for (int k = 1; k < KW; ++k) sum += part[(set * KW + k) * OF_WARP + of];
        use(i, sum);
    }
#endif
}

// y = W x for one token a grid row. `part` is shared memory of PART_FLOATS.
template <class Format>
__device__ __forceinline__ void gemv_row_groups(const u8* W, const u8* x, float* y, int N, int K, float* part) {
    const int first = blockIdx.x * ROWS_PER_BLOCK;
    pdl_launch();
    x += (u64)blockIdx.y * a8_stride(K);
    y += (u64)blockIdx.y * N;
    float sums[RPL];
    dot_row_groups<Format>(sums, W, x, N, K, first);
    each_row(sums, part, [&](int row, float sum) {
        if (first + row < N) y[first + row] = sum;
    });
}

#endif
