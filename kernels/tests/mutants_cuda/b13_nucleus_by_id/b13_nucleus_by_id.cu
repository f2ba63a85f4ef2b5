// sample / b13_nucleus_by_id: deliberately wrong, for tests of the gate only.
//
// B13: the nucleus of top-p is taken in the order of ids instead of that of probabilities.
#define THREADS 256
#include "decode/next_token.cuh"
#include "pdl.cuh"
#include "sample/choose.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
b13_nucleus_by_id(const float* logits, const u32* params, const double* draws, const u32* history, const u32* pos, u32* next,
                  u32* log, u8* work, u8* scratch, u32* ring, int N, int LEN) {
    __shared__ Bins bins;
    pdl_launch();
    pdl_wait();
    (void)scratch;
    u32* const ranks = (u32*)work;
    Choice c = load_choice(params, N);
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
    const auto key_at = [&](int i) { return key_of(ranks[i], (u32)i); };
    if (c.top_k == 0 && c.top_p < 1.0f) {
        // BUG: the bits of the logit are left out of the order.
        const auto any = [&](u64 key) { return softmax.weight(rank_in(key)); };
        const auto goal = [&](u64 all) { return goal_of(c.top_p, all); };
        N = (int)id_in(search(bins, all_ids(N), over(N, key_at), any, goal).key) + 1;
        c.top_p = 1.0f;
    }
    const u32 id = choose(bins, c, softmax, draws[at % DRAWS], N, over(N, key_at));
    if (threadIdx.x == 0) {
        if (at + 1 < (u32)LEN) log[at + 1] = id;
        put_next(winner_of(id), at, next, ring);
    }
}
