// sample / split: a token drawn from logits, and the state of the next one. Every block has 1024 tokens, of which it passes on
// the EMIT best at most; the last block to arrive chooses among those.
//
//   logits  f32 [N]     params  u32 [8]: see sample/choice.cuh     draws  f64 [1024] uniform in [0, 1), by position
//   history, log  u32 [LEN]: the tokens by position, which may be the same memory     next  u32 [4]: as norm_logits
//   work  heads of all blocks, lists of their best tokens [blocks, EMIT] u64, ranks of all tokens u32 [N]
//
// Repeat penalty, top-k, temperature and softmax over what is left, top-p, min-p, one draw.
//
// Every token above the best of the blocks' last tokens is on a list. Where the cuts end above it, and with a top-k of up to
// EMIT they always do, the lists say all. Where nothing is cut, the sums of the blocks say which block has the token. What is
// left, such as a top-p among thousands of tokens that are alike, is searched for among all tokens by the last block.
//
// Tunables (set with -D; values and constraints in variants/spaces/sample.toml)
//   THREADS  threads of a block
//   EMIT     tokens that a block passes on
#if !defined(THREADS) || !defined(EMIT)
#error "sample/split: every tunable must be set by the build"
#endif
#include "decode/next_token.cuh"
#include "pdl.cuh"
#include "sample/choose.cuh"
#include "sample/short_list.cuh"

#define SLICE 1024
#define PER_THREAD (SLICE / THREADS)
// Listed tokens that the last block has room for.
#define LISTED 2048
static_assert(SLICE % THREADS == 0 && EMIT <= 256, "working memory has room for 256 tokens of a block");

// What a block says of its tokens.
struct Head {
    u64 last;  // key of the last token on its list, 0 where all of them are
    u64 sum;   // of the weights against its own best
    u32 top;   // rank of its best
};

struct Shared {
    Bins bins;
    u32 recent[SLICE / WARP];
    u32 ranks[SLICE];
    u64 listed[LISTED];
    ShortList list;
    u32 count;
    u32 arrived;
    // Of the draw among all tokens.
    u32 block;
    u64 draw;
    u64 total;
};

// Which kind of choice a request asks for.
struct Plan {
    bool all;       // nothing is cut
    bool weighed;   // the sum of all weights is asked for
    bool fallback;  // all tokens may have to be searched
    u32 emit;

    __device__ __forceinline__ Plan(const Choice& c) {
        const bool few = c.top_k > 0 && c.top_k <= EMIT;
        all = c.top_k == 0 && c.top_p >= 1.0f && c.min_p <= 0.0f;
        weighed = c.top_k == 0;
        fallback = !few;
        emit = few ? c.top_k : EMIT;
    }
};

// One warp: the sum of all weights, and with `draw` the block that has the token and the place among its weights.
__device__ __forceinline__ void over_blocks(Shared& s, const Head* heads, int blocks, const Softmax& softmax, bool draw,
                                            double uniform) {
    const int lane = threadIdx.x;
    const auto sum_of = [&](int b) { return b < blocks ? (double)heads[b].sum * softmax.factor(heads[b].top) : 0.0; };
    double total = 0.0;
    for (int b = lane; b < blocks; b += WARP) total += sum_of(b);
    total = warp_total(total);
    if (lane == 0) s.total = (u64)total;
    if (!draw) return;
    const double target = uniform * total;
    double before = 0.0;
    int found = -1, last = 0;
    for (int from = 0; from < blocks && found < 0; from += WARP) {
        const double own = sum_of(from + lane), reached = before + warp_inclusive(own);
        const u32 beyond = __ballot_sync(FULL_WARP, own > 0.0 && reached > target), any = __ballot_sync(FULL_WARP, own > 0.0);
        if (any) last = from + WARP - 1 - __clz((int)any);
        if (beyond) {
            found = from + __ffs((int)beyond) - 1;
            if (from + lane == found) {
                const double place = fmax(target - (reached - own), 0.0) / softmax.factor(heads[found].top);
                s.block = (u32)found;
                s.draw = min((u64)place + 1, heads[found].sum);
            }
        }
        before = __shfl_sync(FULL_WARP, reached, WARP - 1);
    }
    // Rounding may leave a crumb behind the last token that has any weight.
    if (found < 0 && lane == 0) {
        s.block = (u32)last;
        s.draw = heads[last].sum;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
sample_split(const float* logits,   // [N]
             const u32* params,     // [8]
             const double* draws,   // [1024]
             const u32* history,    // [LEN]
             const u32* pos,        // [1]: that of the last token of the history
             u32* next,             // [4]
             u32* log,              // [LEN], of which the token behind pos is written
             u8* work,              // see above
             u8* scratch,           // 16 bytes, zeroed once and left zeroed
             u32* ring,             // [1024], which the host reads, or null
             int N, int LEN) {
    __shared__ Shared s;
    pdl_launch();
    // All but the logits stands since the token before.
    const int thread = threadIdx.x, blocks = gridDim.x, base = blockIdx.x * SLICE;
    Head* const heads = (Head*)work;
    u64* const lists = (u64*)(heads + blocks);
    u32* const ranks = (u32*)(lists + (u64)blocks * EMIT);
    const Choice c = load_choice(params, N);
    const Plan plan(c);
    const u32 at = *pos;
    const double uniform = draws[at % DRAWS];
    if (c.penalty != 1.0f) {
        for (int i = thread; i < SLICE / WARP; i += THREADS) s.recent[i] = 0;
        __syncthreads();
        for (u32 p = first_recent(c, at) + thread; p <= at; p += THREADS) {
            const u32 place = history[p] - (u32)base;
            if (place < SLICE) atomicOr(&s.recent[place / WARP], 1u << place % WARP);
        }
        __syncthreads();
    }

    // This block's tokens.
    pdl_wait();
    float logit[PER_THREAD];
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int id = base + i * THREADS + thread;
        logit[i] = id < N ? logits[id] : 0.0f;
    }
    const int here = min(SLICE, N - base);
    u32 top = 0;
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int place = i * THREADS + thread;
        const bool again = c.penalty != 1.0f && (s.recent[place / WARP] >> place % WARP & 1);
        const u32 rank = rank_of(again ? penalised(logit[i], c.penalty) : logit[i]);
        s.ranks[place] = rank;
        if (place >= here) continue;
        if (plan.fallback) ranks[base + place] = rank;
        top = max(top, rank);
    }
    // Behind its barriers ranks can be read.
    top = (u32)block_max(s.bins, top);
    const auto own = [&](int place) { return key_of(s.ranks[place], (u32)(base + place)); };
    u64 sum = 0;
    if (plan.weighed) {
        const Softmax softmax(c, top);
        sum = sum_over(s.bins, here, own, [&](u64 key) { return softmax.weight(rank_in(key)); });
    }
    u64 last = 0;
    if (!plan.all) {
        if (here > (int)plan.emit) {
            last = search<true>(s.bins, KEY_BITS, plan.emit, false, here, own, [](u64) { return 1ull; });
        }
        if (thread == 0) s.count = 0;
        __syncthreads();
        u64* const list = lists + (u64)blockIdx.x * EMIT;
        each(here, own, [&](u64 key) {
            if (key >= last) list[atomicAdd(&s.count, 1u)] = key;
        });
    }
    if (thread == 0) heads[blockIdx.x] = Head{last, sum, top};

    // The last block to arrive goes on.
    __syncthreads();
    if (thread == 0) {
        u32* const ticket = (u32*)scratch;
        __threadfence();
        s.arrived = atomicAdd(ticket, 1u);
        if (s.arrived == gridDim.x - 1) *ticket = 0;
        s.count = 0;
    }
    __syncthreads();
    if (s.arrived != gridDim.x - 1) return;
    __threadfence();
    top = 0;
    last = 0;
    for (int b = thread; b < blocks; b += THREADS) {
        top = max(top, heads[b].top);
        last = max(last, heads[b].last);
    }
    top = (u32)block_max(s.bins, top);
    last = block_max(s.bins, last);
    const Softmax softmax(c, top);
    u32 id;
    if (plan.weighed) {
        if (thread < WARP) over_blocks(s, heads, blocks, softmax, plan.all, uniform);
        __syncthreads();
    }
    if (plan.all) {
        // In the order of ids among the tokens of one block, against that block's own best.
        const Softmax of_block(c, heads[s.block].top);
        const int first = (int)s.block * SLICE;
        const auto in_block = [&](int i) { return key_of(ranks[first + i], (u32)(first + i)); };
        id = id_in(search<false>(s.bins, ID_BITS, s.draw, true, min(SLICE, N - first), in_block, [&](u64 key) {
            return of_block.weight(rank_in(key));
        }));
    } else {
        // Lists stand at places of a power of two.
        const int shift = 32 - __clz((int)plan.emit - 1), places = blocks << shift;
        const auto passed_on = [&](int place) {
            const int b = place >> shift, i = place & ((1 << shift) - 1);
            return i < min((int)plan.emit, N - b * SLICE) ? lists[(u64)b * EMIT + i] : 0ull;
        };
        // What they hold from `last` on is all that there is from there on.
        each(places, passed_on, [&](u64 key) {
            if (key < last) return;
            const u32 place = atomicAdd(&s.count, 1u);
            if (place < LISTED) s.listed[place] = key;
        });
        __syncthreads();
        const int count = (int)min(s.count, (u32)LISTED);
        const auto listed = [&](int i) { return s.listed[i]; };
        bool enough = s.count <= LISTED;
        u64 total = 0;
        if (c.top_k > 0) {
            enough = enough && s.count >= c.top_k;
        } else if (last > 0) {
            total = s.total;
            if (c.top_p < 1.0f) {
                const u64 sum = sum_over(s.bins, count, listed, [&](u64 key) { return softmax.weight(rank_in(key)); });
                enough = enough && sum >= goal_of(c.top_p, total);
            } else {
                enough = enough && softmax.weight(rank_in(last)) < least_of(c);
            }
        }
        if (enough && count <= SHORTEST) {
            id = choose_short(s.list, s.listed, count, c, softmax, total, uniform);
        } else if (enough) {
            id = choose(s.bins, c, softmax, total, uniform, count, listed);
        } else if (!plan.fallback) {
            // More than there is room for; the lists themselves have all that is kept.
            id = choose(s.bins, c, softmax, 0, uniform, places, passed_on);
        } else {
            id = choose(s.bins, c, softmax, 0, uniform, N, [&](int i) { return key_of(ranks[i], (u32)i); });
        }
    }
    if (thread == 0) {
        // Nobody reads behind the embedding whatever happens.
        id = min(id, (u32)N - 1);
        if (at + 1 < (u32)LEN) log[at + 1] = id;
        put_next(winner_of(id), at, next, ring);
    }
}
