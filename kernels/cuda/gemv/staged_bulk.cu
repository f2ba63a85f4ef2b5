// gemv_q4_0 / staged_bulk: y = W x for one token; every warp streams its rows through a ring in shared memory.
//
//   W  planes  quants [N][K/32][16 B], then from the next multiple of 256 B scales f16 [N][K/32]
//   x  a8/32   K int8, then K/32 pairs of f32 (s, s * sum of q)
//   y  f32 [N]
//
// A warp owns a ring of STAGES pieces. A piece is G = 32 / LPR * RPL rows by CHUNK * LPR blocks; the copy engine fetches
// it (cp.async.bulk), so that bytes in flight cost no registers and the first STAGES pieces are on their way before
// pdl_wait, while the kernel before this one still runs. That is what it is for: under programmatic dependent launch the
// memory stays busy across the boundary. Without it, one-shot blocks (planes_dp4a) are faster.
//
//   piece:   | quants row 0 | row 1 | ... row G-1 | scales row 0 | ... row G-1 |
//   lane l:  row (l / LPR) * RPL + r,  block c * CHUNK * LPR + i * LPR + l % LPR
//
// Reads N*K*18/32 bytes of weights once: bound by bandwidth. Integer dots are exact, sums are f32 in a fixed order.
// Needs K % 256 == 0 (16-byte aligned pieces of the scale plane), M = 1, compute capability 9.0.
//
// Tunables (set with -D; values and constraints in variants/spaces/gemv_q4_0.toml)
//   LPR            lanes that share a row: 8, 16, 32
//   RPL            rows of a lane, which share each load of x
//   CHUNK          blocks of a lane in a piece
//   STAGES         pieces of a ring
//   WARPS          warps of a block, each with its own ring
//   BLOCKS_PER_SM  blocks for each SM: the grid is persistent (used by the launch geometry alone)
//   XSTAGE         1: x is copied to shared memory first; 0: it is read through L1
#include "bulk_copy.cuh"
#include "dialect.cuh"
#include "pdl.cuh"
#include "warp.cuh"

#if !defined(LPR) || !defined(RPL) || !defined(CHUNK) || !defined(STAGES) || !defined(WARPS) || \
    !defined(BLOCKS_PER_SM) || !defined(XSTAGE)
#error "gemv_q4_0/staged_bulk: every tunable must be set by the build"
#endif

#define G (WARP / LPR * RPL)
#define PIECE_BLOCKS (CHUNK * LPR)
#define PIECE_BYTES (G * PIECE_BLOCKS * 18)
static_assert(G <= WARP, "one lane starts the copies of one row");
static_assert(PIECE_BLOCKS % 8 == 0, "a row's piece of the scale plane must be a multiple of 16 bytes");

// The weights as a warp sees them.
struct Rows {
    const u8* quants;
    const u8* scales;
    int n, blocks;
};

// Starts the copies of piece `chunk` of the row group `group`: each lane those of one row.
__device__ __forceinline__ void fetch(const Rows& w, int group, int chunk, u8* piece, u64* barrier, int lane) {
    int rows = min(G, w.n - group * G);
    int first = chunk * PIECE_BLOCKS;
    int blocks = min(PIECE_BLOCKS, w.blocks - first);
    if (lane == 0) barrier_expect(barrier, (u32)(rows * blocks * 18));
    __syncwarp();
    if (lane < rows) {
        i64 at = (i64)(group * G + lane) * w.blocks + first;
        copy_bulk(piece + lane * PIECE_BLOCKS * 16, w.quants + at * 16, (u32)blocks * 16, barrier);
        copy_bulk(piece + G * PIECE_BLOCKS * 16 + lane * PIECE_BLOCKS * 2, w.scales + at * 2, (u32)blocks * 2, barrier);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
gemv_staged_bulk(const u8* __restrict__ W,  // planes of [N, K]
                 const u8* x,               // a8/32 of [K]
                 float* y,                  // [N]
                 int N, int K, int M) {
    DYNAMIC_SHARED(shared);
    __shared__ u64 barriers[WARPS * STAGES];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int sub = lane / LPR, place = lane % LPR;
    const Rows w = {W, W + ((i64)N * K / 2 + 255) / 256 * 256, N, K / 32};
    u8* ring = shared + warp * STAGES * PIECE_BYTES;
    u64* ready = barriers + warp * STAGES;

    const int groups = ceil_div(N, G), chunks = ceil_div(w.blocks, PIECE_BLOCKS);
    const int first = blockIdx.x * WARPS + warp, stride = gridDim.x * WARPS;
    const int pieces = first < groups ? ((groups - 1 - first) / stride + 1) * chunks : 0;
    pdl_launch();
    if (lane == 0) {
        for (int s = 0; s < STAGES; s++) barrier_init(&ready[s]);
        barrier_init_fence();
    }
    __syncwarp();
    for (int p = 0; p < min(STAGES, pieces); p++) {
        fetch(w, first + p / chunks * stride, p % chunks, ring + p * PIECE_BYTES, &ready[p], lane);
    }

    pdl_wait();
#if XSTAGE
    u8* xq = shared + WARPS * STAGES * PIECE_BYTES;
    for (int i = threadIdx.x; i < (K + K / 4) / 16; i += WARP * WARPS) ((uint4*)xq)[i] = load_16(x + i * 16);
    __syncthreads();
#else
    const u8* xq = x;
#endif
    const float2* xs = (const float2*)(xq + K);

    float sums[RPL];
#pragma unroll
    for (int r = 0; r < RPL; r++) sums[r] = 0.0f;
    int stage = 0, parity = 0, chunk = 0, group = first;
    for (int p = 0; p < pieces; p++) {
        barrier_wait(&ready[stage], parity);
        const u8* quants = ring + stage * PIECE_BYTES;
        const u16* scales = (const u16*)(quants + G * PIECE_BLOCKS * 16);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            int block = chunk * PIECE_BLOCKS + i * LPR + place;
            if (block >= w.blocks) continue;
            uint4 low = load_16(xq + block * 32), high = load_16(xq + block * 32 + 16);
            float2 s = xs[block];
#pragma unroll
            for (int r = 0; r < RPL; r++) {
                int at = (sub * RPL + r) * PIECE_BLOCKS + i * LPR + place;
                uint4 q = *(const uint4*)(quants + at * 16);
                int dot = 0;
                dot = dot4(low.x, q.x & 0x0f0f0f0fu, dot);
                dot = dot4(high.x, q.x >> 4 & 0x0f0f0f0fu, dot);
                dot = dot4(low.y, q.y & 0x0f0f0f0fu, dot);
                dot = dot4(high.y, q.y >> 4 & 0x0f0f0f0fu, dot);
                dot = dot4(low.z, q.z & 0x0f0f0f0fu, dot);
                dot = dot4(high.z, q.z >> 4 & 0x0f0f0f0fu, dot);
                dot = dot4(low.w, q.w & 0x0f0f0f0fu, dot);
                dot = dot4(high.w, q.w >> 4 & 0x0f0f0f0fu, dot);
                // w = d (q - 8), so the sum over the block is d (s dot - 8 t), with t = s * sum of x.
                sums[r] += f16_to_f32(scales[at]) * (s.x * (float)dot - 8.0f * s.y);
            }
        }
        // Every lane has read the piece before the engine may overwrite it.
        __syncwarp();
        if (p + STAGES < pieces) {
            int next = p + STAGES;
            fetch(w, first + next / chunks * stride, next % chunks, ring + stage * PIECE_BYTES, &ready[stage], lane);
        }
        if (++stage == STAGES) stage = 0, parity ^= 1;
        if (++chunk == chunks) {
#pragma unroll
            for (int r = 0; r < RPL; r++) {
                float sum = warp_sum_over<1, LPR>(sums[r]);
                int row = group * G + sub * RPL + r;
                if (place == 0 && row < N) y[row] = sum;
                sums[r] = 0.0f;
            }
            chunk = 0, group += stride;
        }
    }
}
