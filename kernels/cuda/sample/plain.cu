// sample / plain: a token drawn from logits, and the state of the next one. One block that reads all logits again for every
// eight bits of a cut.
//
//   logits  f32 [N]     params  u32 [8]: see sample/choice.cuh     draws  f64 [1024] uniform in [0, 1), by position
//   history, log  u32 [LEN]: the tokens by position, which may be the same memory     next  u32 [4]: as norm_logits
//
// Repeat penalty, top-k, temperature and softmax over what is left, top-p, min-p, one draw. The baseline; no tunables.
#define THREADS 256
#include "decode/next_token.cuh"
#include "pdl.cuh"
#include "sample/choose.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
sample_plain(const float* logits,   // [N]
             const u32* params,     // [8]
             const double* draws,   // [1024]
             const u32* history,    // [LEN]
             const u32* pos,        // [1]: that of the last token of the history
             u32* next,             // [4]
             u32* log,              // [LEN], of which the token behind pos is written
             u8* work,              // see kernels/src/op/sample.rs
             u8* scratch,           // 16 bytes, not used here
             u32* ring,             // [1024], which the host reads, or null
             int N, int LEN) {
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
            // Whoever finds a token again writes the same.
            const u32 id = history[p];
            ranks[id] = rank_of(penalised(logits[id], c.penalty));
        }
        __syncthreads();
    }
    u32 top = 0;
    for (int i = threadIdx.x; i < N; i += THREADS) top = max(top, ranks[i]);
    top = (u32)block_max(bins, top);
    const Softmax softmax(c, top);
    const auto each = over(N, [&](int i) { return key_of(ranks[i], (u32)i); });
    const u32 id = choose(bins, c, softmax, draws[at % DRAWS], N, each);
    if (threadIdx.x == 0) {
        if (at + 1 < (u32)LEN) log[at + 1] = id;
        put_next(winner_of(id), at, next, ring);
    }
}
