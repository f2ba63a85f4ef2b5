// sample / last_tokens_left_out: deliberately wrong, for tests of the gate only.
//
// The sums of weights leave out the tokens behind the last whole 256.
#define THREADS 256
#include "decode/next_token.cuh"
#include "pdl.cuh"
#include "sample/choose.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
last_tokens_left_out(const float* logits, const u32* params, const double* draws, const u32* history, const u32* pos, u32* next,
                     u32* log, u8* work, u8* scratch, u32* ring, int N, int LEN) {
    __shared__ Bins bins;
    pdl_launch();
    pdl_wait();
    (void)scratch;
    u32* const ranks = (u32*)work;
    const Choice c = load_choice(params, N);
    const u32 at = *pos;
    for (int i = threadIdx.x; i < N; i += THREADS) ranks[i] = rank_of(logits[i]);
    __syncthreads();
    if (c.penalty != 1.0f) {
        for (u32 p = first_recent(c, at) + threadIdx.x; p <= at; p += THREADS) {
            const u32 id = history[p];
            ranks[id] = rank_of(penalised(logits[id], c.penalty));
        }
        __syncthreads();
    }
    u32 top = 0;
    for (int i = threadIdx.x; i < N; i += THREADS) top = max(top, ranks[i]);
    top = (u32)block_max(bins, top);
    const Softmax softmax(c, top);
    // BUG: what is left of the last 256 is never looked at.
    const int whole = N < THREADS ? N : N / THREADS * THREADS;
    const auto each = over(whole, [&](int i) { return key_of(ranks[i], (u32)i); });
    const u32 id = choose(bins, c, softmax, draws[at % DRAWS], N, each);
    if (threadIdx.x == 0) {
        if (at + 1 < (u32)LEN) log[at + 1] = id;
        put_next(winner_of(id), at, next, ring);
    }
}
