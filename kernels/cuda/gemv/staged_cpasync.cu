// gemv / staged_cpasync: y = W x with int8 activations, codes through a ring of asynchronous copies (V18).
//
//   W  planes  [N, K/32] blocks (include/planes.cuh)     x  a8/32  [M] slabs     y  f32  [M, N]
//
// Every lane owns the places of the ring that it reads, so a wait for its own copies is all the order there is: no
// barrier. Bytes in flight cost shared memory and no registers, but for the scales, which are too narrow for cp.async
// and travel in registers one round behind. KW warps share the K of RPL rows. Sums in f32 in a fixed order.
// Needs K % 32 == 0 (G128: 128) and compute capability 8.0. Any grid is right. Set by the build: FORMAT.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_*.toml)
//   WARPS   warps of a block
//   KW      warps that share the K of a row
//   RPL     rows of a warp, which share each load of activations
//   STAGES  rounds of the ring, of one block a row and lane
#if !defined(WARPS) || !defined(KW) || !defined(RPL) || !defined(STAGES)
#error "gemv/staged_cpasync: every tunable must be set by the build"
#endif
#include "async_copy.cuh"
#include "pdl.cuh"
#include "planes.cuh"
#include "warp.cuh"

static_assert(WARPS >= 1 && WARPS <= 32, "a block has 1024 threads at most");
static_assert(WARPS % KW == 0, "the warps of a block are whole groups of KW");
static_assert(STAGES >= 2 && STAGES <= 8, "a ring has 2 to 8 rounds");

constexpr int THREADS = WARPS * WARP;
constexpr int STEP = WARP * KW;
constexpr int TILE_ROWS = WARPS / KW * RPL;
// 16-byte vectors of a round: [row][word of codes][thread], so that neighbouring lanes are neighbours in memory.
constexpr int ROUND_VECTORS = RPL * CODE_WORDS * THREADS;

// What does not fit an asynchronous copy.
struct Rest {
    u32 scale;
    u32 high;
};

__device__ __forceinline__ void request(uint4* round, Rest (&rest)[RPL], const Planes& planes, const u32 (&first)[RPL],
                                        int b, int n_blocks) {
#pragma unroll
    for (int r = 0; r < RPL; r++) {
        rest[r] = {0, 0};
        if (b < n_blocks) {
            const u32 index = first[r] + b;
#pragma unroll
            for (int i = 0; i < CODE_WORDS; i++) {
                copy_async_16(round + (r * CODE_WORDS + i) * THREADS + threadIdx.x,
                              planes.codes + (u64)index * (16 * CODE_WORDS) + 16 * i);
            }
#if FORMAT == Q5_0
            rest[r].high = load_weights_4(planes.high + (u64)index * 4);
#endif
#if FORMAT == Q4_1
            rest[r].scale = load_weights_4(planes.scales + (u64)index * 4);
#else
            rest[r].scale = load_weights_2(planes.scales + (u64)(index / SCALE_BLOCKS) * 2);
#endif
        }
    }
    // Every round is a group, an empty one too: the wait counts groups.
    copy_async_commit();
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_staged_cpasync(const u8* __restrict__ W,  // planes of [N, K/32]
                    const u8* x,               // [M] slabs of a8/32
                    float* y,                  // [M, N]
                    int N, int K, int M) {
    __shared__ float partial[WARPS][RPL];
    DYNAMIC_SHARED(memory);
    uint4* ring = (uint4*)memory;
    const int n_blocks = K / 32;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int b_first = warp % KW * WARP + lane;
    const Planes planes = planes_of(W, N, K);
    x += (i64)blockIdx.y * activation_stride(K);
    y += (i64)blockIdx.y * N;
    pdl_launch();

    bool waited = false;
    for (int tile = blockIdx.x; tile < ceil_div(N, TILE_ROWS); tile += gridDim.x) {
        const int row0 = tile * TILE_ROWS + warp / KW * RPL;
        u32 first[RPL];
#pragma unroll
        for (int r = 0; r < RPL; r++) first[r] = (u32)min(row0 + r, N - 1) * n_blocks;
        Rest rest[STAGES][RPL];
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            request(ring + s * ROUND_VECTORS, rest[s], planes, first, b_first + s * STEP, n_blocks);
        }
        if (!waited) {
            pdl_wait();
            waited = true;
        }
        float sums[RPL];
#pragma unroll
        for (int r = 0; r < RPL; r++) sums[r] = 0.0f;
        for (int b0 = b_first; b0 < n_blocks; b0 += STAGES * STEP) {
#pragma unroll
            for (int s = 0; s < STAGES; s++) {
                const int b = b0 + s * STEP;
                // The round that was consumed last makes room for the one STAGES - 1 ahead.
                request(ring + (s + STAGES - 1) % STAGES * ROUND_VECTORS, rest[(s + STAGES - 1) % STAGES], planes, first,
                        b + (STAGES - 1) * STEP, n_blocks);
                copy_async_wait<STAGES - 1>();
                if (b < n_blocks) {
                    Activations a = load_activations(x, K, b);
#pragma unroll
                    for (int r = 0; r < RPL; r++) {
                        Block block;
#pragma unroll
                        for (int i = 0; i < CODE_WORDS; i++) {
                            block.codes[i] = ring[s * ROUND_VECTORS + (r * CODE_WORDS + i) * THREADS + threadIdx.x];
                        }
#if FORMAT == Q5_0
                        block.high = rest[s][r].high;
#endif
                        block.scale = rest[s][r].scale;
                        sums[r] = block_add(block, a, sums[r]);
                    }
                }
            }
        }
        // Rounds beyond K are empty, but a tile starts with none under way.
        copy_async_wait<0>();
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
