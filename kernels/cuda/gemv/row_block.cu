// gemv / row_block: y = W x, a block per row, fused multiply-adds on decoded codes (V2-V6, V11, V12, V16, V22).
//
//   W  blocks of the file, or g128  [N, K]     x  f32  [M, K]     y  f32  [M, N]
//
// A thread takes units of VEC weights that share bytes of codes, THREADS units apart, and may request units ahead of
// their use. Activations lie in shared memory whole (4 K bytes), in chunks of 4096, or are read through L1: the last two
// hold for any K (V22). Sums in f32 in a fixed order. Needs K % 32 == 0 (G128: 128). Any grid is right.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_*.toml)
//   THREADS  threads of a block: a multiple of 32
//   VEC      weights of a unit: 2, 4 or 8
//   AHEAD    units requested before they are used: 0 none, 1 the next one (double buffer), 8 eight at once
//   XMODE    activations: 0 whole in shared memory, 1 in chunks, 2 from global memory
#if !defined(THREADS) || !defined(VEC) || !defined(AHEAD) || !defined(XMODE)
#error "gemv/row_block: every tunable must be set by the build"
#endif
#include "native.cuh"
#include "pdl.cuh"
#include "warp.cuh"

static_assert(THREADS % WARP == 0 && THREADS <= 1024, "a block is whole warps, 1024 threads at most");
static_assert(VEC == 2 || VEC == 4 || VEC == 8, "a unit is 2, 4 or 8 weights");
static_assert(AHEAD == 0 || AHEAD == 1 || AHEAD == 8, "AHEAD is 0, 1 or 8");
static_assert(XMODE >= 0 && XMODE <= 2, "XMODE is 0, 1 or 2");

constexpr int PER_BLOCK = 32 / VEC;
// Units in a chunk of 4096 activations: whole blocks.
constexpr int CHUNK_UNITS = 4096 / VEC;
constexpr int BATCH = AHEAD == 8 ? 8 : 1;

struct Unit {
    Codes<VEC> codes;
    Scale scale;
};

__device__ __forceinline__ Unit load_unit(const u8* W, u32 row_block, int unit, int N, int K) {
    Unit u;
    u32 index = row_block + unit / PER_BLOCK;
    u.codes = load_codes<VEC>(W, index, unit % PER_BLOCK);
    u.scale = scale_of(W, index, N, K);
    return u;
}

// `x` points to the activation of the row's first weight, wherever it is.
__device__ __forceinline__ float unit_dot(const Unit& u, const float* x, int unit, float sum) {
    const int i = unit % PER_BLOCK;
    const float* at = x + unit / PER_BLOCK * 32;
#pragma unroll
    for (int e = 0; e < VEC; e++) {
        float w = fmaf(u.scale.d, code_of<VEC>(u.codes, i, e), u.scale.m);
        sum = fmaf(w, at[place_in_block<VEC>(i, e)], sum);
    }
    return sum;
}

// The product over units first, first + THREADS, ... below `end`.
__device__ __forceinline__ float run(const u8* W, u32 row_block, const float* x, int first, int end, int N, int K, float sum) {
#if AHEAD == 1
    Unit next = {};
    if (first < end) next = load_unit(W, row_block, first, N, K);
    for (int unit = first; unit < end; unit += THREADS) {
        Unit now = next;
        if (unit + THREADS < end) next = load_unit(W, row_block, unit + THREADS, N, K);
        sum = unit_dot(now, x, unit, sum);
    }
#else
    for (int unit = first; unit < end; unit += THREADS * BATCH) {
        Unit held[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            if (unit + i * THREADS < end) held[i] = load_unit(W, row_block, unit + i * THREADS, N, K);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            if (unit + i * THREADS < end) sum = unit_dot(held[i], x, unit + i * THREADS, sum);
        }
    }
#endif
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemv_row_block(const u8* __restrict__ W,  // [N, K]
               const float* x,            // [M, K]
               float* y,                  // [M, N]
               int N, int K, int M) {
    __shared__ float partial[THREADS / WARP];
    DYNAMIC_SHARED(memory);
    float* staged = (float*)memory;
    const int units = K / VEC;
    pdl_launch();
    pdl_wait();
    x += (i64)blockIdx.y * K;
    y += (i64)blockIdx.y * N;
    if (XMODE == 0) {
        for (int i = threadIdx.x; i < K; i += THREADS) staged[i] = x[i];
        __syncthreads();
    }
    for (int row = blockIdx.x; row < N; row += gridDim.x) {
        const u32 row_block = (u32)row * (K / 32);
        float sum = 0.0f;
        if (XMODE == 1) {
            for (int start = 0; start < units; start += CHUNK_UNITS) {
                const int end = min(start + CHUNK_UNITS, units);
                for (int i = threadIdx.x; i < (end - start) * VEC; i += THREADS) staged[i] = x[start * VEC + i];
                __syncthreads();
                // `run` counts from the row's start, and the chunk holds what begins at `start`.
                sum = run(W, row_block, staged - start * VEC, start + threadIdx.x, end, N, K, sum);
                __syncthreads();
            }
        } else {
            sum = run(W, row_block, XMODE == 0 ? staged : x, threadIdx.x, units, N, K, sum);
        }
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            float total = 0.0f;
            for (int w = 0; w < THREADS / WARP; w++) total += partial[w];
            y[row] = total;
        }
        // The next row writes the same partial sums.
        __syncthreads();
    }
}
