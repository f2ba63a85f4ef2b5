// gemv / tiled_dp4a: y = W x with int8 activations on interleaved rows: a warp's load is 512 contiguous bytes (V17, V15).
//
//   W  row_interleaved_R  [N/R tiles][steps][32 lanes] (include/interleaved.cuh)   x  a8/32  [M] slabs   y  f32  [M, N]
//
// A lane stays with its row and its scale; KWARPS warps share the steps of a tile. INFLIGHT steps are requested before
// any is used, the first of them before the wait. Fewer distinct activations meet a warp's load than in planes_dp4a, and
// sums need shuffles over 32/R lanes only. Sums in f32 in a fixed order. Needs K % 32 == 0. Any grid is right.
// Set by the build: FORMAT, R.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_*.toml)
//   WARPS     warps of a block
//   KWARPS    warps that share the K of a tile
//   INFLIGHT  steps that a lane requests at once
//   XSTAGE    0: activations through L1, 1: copied to shared memory
#if !defined(R) || !defined(WARPS) || !defined(KWARPS) || !defined(INFLIGHT) || !defined(XSTAGE)
#error "gemv/tiled_dp4a: every tunable must be set by the build"
#endif
#include "interleaved.cuh"
#include "pdl.cuh"
#include "warp.cuh"

static_assert(R == 4 || R == 8 || R == 16 || R == 32, "the layout interleaves 4, 8, 16 or 32 rows");
static_assert(WARPS >= 1 && WARPS <= 32, "a block has 1024 threads at most");
static_assert(WARPS % KWARPS == 0, "the warps of a block are whole groups of KWARPS");
static_assert(XSTAGE == 0 || XSTAGE == 1, "XSTAGE is a switch");

constexpr int THREADS = WARPS * WARP;
// Blocks of K in a step, and tiles that a block of threads holds at once.
constexpr int SIDE = WARP / R;
constexpr int GROUPS = WARPS / KWARPS;

struct Round {
    Block blocks[INFLIGHT];
};

__device__ __forceinline__ void request(Round& round, const Interleaved& w, u32 first_place, int step, int steps) {
#pragma unroll
    for (int i = 0; i < INFLIGHT; i++) {
        int at = step + i * KWARPS;
        round.blocks[i] = at < steps ? load_block(w, first_place + at * WARP) : no_block();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_tiled_dp4a(const u8* __restrict__ W,  // row_interleaved_R of [N, K/32]
                const u8* x,               // [M] slabs of a8/32
                float* y,                  // [M, N]
                int N, int K, int M) {
    __shared__ float partial[WARPS][R];
    DYNAMIC_SHARED(staged);
    const int n_blocks = K / 32, steps = ceil_div(n_blocks, SIDE), tiles = ceil_div(N, R);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const Interleaved planes = interleaved_of(W, tiles, steps);
    x += (i64)blockIdx.y * activation_stride(K);
    y += (i64)blockIdx.y * N;
    pdl_launch();

    bool waited = false;
    for (int first = blockIdx.x * GROUPS; first < tiles; first += gridDim.x * GROUPS) {
        const int tile = first + warp / KWARPS;
        // A group without a tile works on the last one again and drops the result: barriers need every warp.
        const u32 first_place = (u32)min(tile, tiles - 1) * steps * WARP + lane;
        Round round;
        request(round, planes, first_place, warp % KWARPS, steps);
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
        float sum = 0.0f;
        for (int step = warp % KWARPS; step < steps; step += INFLIGHT * KWARPS) {
#pragma unroll
            for (int i = 0; i < INFLIGHT; i++) {
                int at = step + i * KWARPS;
                if (at < steps) {
                    // Beyond K the weights are zero, and any finite activation will do.
                    int b = min(at * SIDE + lane / R, n_blocks - 1);
                    sum = block_add(round.blocks[i], load_activations(slab, K, b), sum);
                }
            }
            if (step + INFLIGHT * KWARPS < steps) request(round, planes, first_place, step + INFLIGHT * KWARPS, steps);
        }
        sum = warp_sum_over<R, WARP>(sum);
        if (KWARPS == 1) {
            if (lane < R && tile * R + lane < N) y[tile * R + lane] = sum;
        } else {
            if (lane < R) partial[warp][lane] = sum;
            __syncthreads();
            for (int i = threadIdx.x; i < GROUPS * R; i += THREADS) {
                float total = 0.0f;
#pragma unroll
                for (int k = 0; k < KWARPS; k++) total += partial[i / R * KWARPS + k][i % R];
                if (first * R + i < N) y[first * R + i] = total;
            }
            // The next tiles write the same partial sums.
            __syncthreads();
        }
    }
}
