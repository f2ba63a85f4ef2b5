// dequantize / runs: out = W in 16-bit floats, 16 weights a thread at a time.
//
//   W  planes of [N, K], or its floats     out  f16 [N, K]
//
// The codes of UNROLL units are requested before the wait for the kernel ahead. Neighbouring threads take neighbouring
// units, and a thread stores each run of 8 weights as 16 bytes: a store of a warp fills whole sectors of 32. FORMAT (a
// constant of the space) names the block type. K % 32 == 0, N * K < 2^32.
//
// Tunables (set with -D; values and constraints in variants/spaces/dequantize.toml)
//   THREADS  threads in a block
//   UNROLL   units that a thread requests at once
#if !defined(THREADS) || !defined(UNROLL)
#error "dequantize/runs: every tunable must be set by the build"
#endif
#include "gemm/weights.cuh"
#include "pdl.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
dequantize_runs(const u8* W,  // planes of [N, K], or its floats
                u16* out,     // [N, K]
                int N, int K) {
    const u32 units = (u32)N * (K / 16), first = blockIdx.x * (THREADS * UNROLL) + threadIdx.x;
    const Weights::Base base = Weights::base(W, N, K);
    pdl_launch();
    Weights::Piece pieces[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
        if (first + u * THREADS < units) pieces[u] = Weights::load(base, first + u * THREADS);
    }
    pdl_wait();
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
        const u32 unit = first + u * THREADS;
        if (unit < units) {
            u32 first_run[4], second_run[4];
            Weights::expand<0>(pieces[u], unit % 2, first_run);
            Weights::expand<1>(pieces[u], unit % 2, second_run);
            // Rows are whole blocks, so that columns may be counted through all of them. A block of 32 spans two units.
            const u64 block = (u64)(unit / 2) * 32;
            *(uint4*)(out + block + Weights::run_at(unit % 2, 0)) =
                make_uint4(first_run[0], first_run[1], first_run[2], first_run[3]);
            *(uint4*)(out + block + Weights::run_at(unit % 2, 1)) =
                make_uint4(second_run[0], second_run[1], second_run[2], second_run[3]);
        }
    }
}
