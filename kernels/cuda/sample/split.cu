// sample / split: a token drawn from logits, and the state of the next one. Every block sums up a slice of the tokens; the last
// block to arrive finds by those sums which few tokens matter, and looks at them alone.
//
//   logits  f32 [N]     params  u32 [8]: see sample/choice.cuh     draws  f64 [1024] uniform in [0, 1), by position
//   history, log  u32 [LEN]: the tokens by position, which may be the same memory     next  u32 [4]: as norm_logits
//   work  ranks of all tokens u32 [blocks, SLICE], the best of each group u32 [blocks, WARPS], heads of all blocks, sums by
//         level u64 [blocks, LEVELS], and keys in the order of levels u64 [blocks, SLICE]
//
// Repeat penalty, top-k, temperature and softmax over what is left, top-p, min-p, one draw.
//
// A group is the 128 tokens of a warp. The k-th best of the groups' best tokens is a cut that leaves k tokens at least, and
// few more: groups whose best is below it are not looked at. With top-p the sums by level say in which level the cut lies.
// Where all down to there are few they are listed; else the tokens of that level alone, and then those of the level in which
// the draw lies. Where nothing is cut, the sums of the blocks say which block has the token.
//
// Tunables (set with -D; values and constraints in variants/spaces/sample.toml)
//   THREADS  threads of a block, of four tokens each
//   ASKED    groups that a warp asks for at once, of those that are looked at
#if !defined(THREADS) || !defined(ASKED)
#error "sample/split: every tunable must be set by the build"
#endif
#include "decode/next_token.cuh"
#include "pdl.cuh"
#include "sample/choose.cuh"
#include "sample/levels.cuh"
#include "sample/listing.cuh"
#include "sample/short_list.cuh"

// What a block says of its tokens.
struct Head {
    u64 sum;    // of the weights against its own best
    u32 top;    // rank of its best
    int level;  // of its best
};

struct Shared {
    Bins bins;
    u32 recent[SLICE / WARP];
    Levels levels;
    union {
        Listing listing;
        LevelParts<MOST_BLOCKS> parts;
    };
    union {
        Groups groups;
        Spans spans;
        ShortList list;
    };
    // What is asked for again at the end.
    double uniform;
    u32 at;
    u32 arrived;
    u32 id;
    // Of the draw among all tokens.
    u32 block;
    u64 draw;
};

// Which kind of choice a request asks for.
struct Plan {
    bool all;      // nothing is cut
    bool leveled;  // by level
    bool weighed;  // weights are summed up

    __device__ __forceinline__ explicit Plan(const Choice& c)
        : all(c.top_k == 0 && c.top_p >= 1.0f && c.min_p <= 0.0f), leveled(c.top_k == 0 && c.top_p < 1.0f),
          weighed(all || leveled) {}
};

// What is searched for: where top-k and top-p cut, then the token.
enum class Stage { TopK, TopP, Draw };

// The draw where nothing is cut, in the order of ids. Thread b knows the head of block b and its sum as a part of all.
__device__ __forceinline__ u32 draw_of_all(Shared& s, const Choice& c, const u32* ranks, const Head& head, double factor,
                                           u64 mass) {
    const u64 reached = block_inclusive(s.bins, mass);
    if (threadIdx.x == THREADS - 1) s.draw = draw_of(s.uniform, reached);
    __syncthreads();
    const u64 goal = s.draw;
    __syncthreads();
    if (reached - mass < goal && reached >= goal) {
        const double place = (double)(goal - (reached - mass)) / factor;
        s.block = threadIdx.x;
        s.draw = min(max((u64)place, 1ull), head.sum);
        s.bins.bin = head.top;
    }
    __syncthreads();
    const int first = (int)s.block * SLICE + PER_THREAD * (int)threadIdx.x;
    const uint4 quad = load_16(ranks + first);
    const u32 rank[PER_THREAD] = {quad.x, quad.y, quad.z, quad.w};
    // Against that block's own best.
    const Softmax softmax(c, s.bins.bin);
    u64 weight[PER_THREAD], own = 0;
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        weight[i] = rank[i] != 0 ? softmax.weight(rank[i]) : 0;
        own += weight[i];
    }
    u64 sum = block_inclusive(s.bins, own) - own;
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        if (sum < s.draw && sum + weight[i] >= s.draw) s.id = (u32)(first + i);
        sum += weight[i];
    }
    __syncthreads();
    return s.id;
}

// The best of many that are alike: the k-th of the threads' best, or a little less, and below all where there are not so many.
__device__ __forceinline__ u32 cut_of(u32 best, u32 top, u32 k) {
    u32 count = (u32)__syncthreads_count(best != 0);
    if (count < k) return LOWEST;
    // Of `least` there are k or more, of `most` less. At first the steps go down from the best.
    u32 least = LOWEST, most = top + 1, step = 1u << 22;
    while (most - least > 1 && count > k + k / 4 + 4) {
        u32 middle = least + (most - least) / 2;
        if (least == LOWEST && step > 0 && most - least > step) {
            middle = most - step;
            step *= 4;
        }
        const u32 above = (u32)__syncthreads_count(best >= middle);
        if (above >= k) {
            least = middle;
            count = above;
        } else {
            most = middle;
        }
    }
    return least;
}

// Where a kernel may start early, no block takes more than half of the registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && ASKED < 8
#define AT_LEAST 2
#else
#define AT_LEAST 1
#endif

extern "C" __global__ void __launch_bounds__(THREADS, AT_LEAST)
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
    const int thread = threadIdx.x, blocks = gridDim.x, base = blockIdx.x * SLICE, first = base + PER_THREAD * thread;
    u32* const ranks = (u32*)work;
    u32* const group_best = ranks + blocks * SLICE;
    Head* const heads = (Head*)(group_best + blocks * WARPS);
    u64* const sums = (u64*)(heads + blocks);
    u64* const sorted = sums + blocks * LEVELS;
    const Choice c = load_choice(params, N);
    const Plan plan(c);
    const Ladder ladder(c);
    const u32 at = *pos;
    if (thread == 0) {
        s.at = at;
        s.uniform = draws[at % DRAWS];
    }
    u32 again = 0;
    if (c.penalty != 1.0f) {
        for (int i = thread; i < SLICE / WARP; i += THREADS) s.recent[i] = 0;
        __syncthreads();
        for (u32 p = first_recent(c, at) + thread; p <= at; p += THREADS) {
            const u32 place = history[p] - (u32)base;
            if (place < SLICE) atomicOr(&s.recent[place / WARP], 1u << place % WARP);
        }
        __syncthreads();
        again = s.recent[PER_THREAD * thread / WARP] >> PER_THREAD * thread % WARP;
    }

    // This block's tokens.
    pdl_wait();
    float logit[PER_THREAD];
    if (first + PER_THREAD <= N) {
        const uint4 quad = load_16(logits + first);
        const u32 bits[PER_THREAD] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) logit[i] = __uint_as_float(bits[i]);
    } else {
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) logit[i] = first + i < N ? logits[first + i] : 0.0f;
    }
    u32 rank[PER_THREAD], best = 0;
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        // No token has the rank 0.
        rank[i] = first + i < N ? rank_of(again >> i & 1 ? penalised(logit[i], c.penalty) : logit[i]) : 0;
        best = max(best, rank[i]);
    }
    *(uint4*)(ranks + first) = make_uint4(rank[0], rank[1], rank[2], rank[3]);
    best = warp_max(best);
    if (thread % WARP == 0) group_best[base / GROUP + thread / WARP] = best;
    u32 top = best;
    if (plan.weighed) {
        top = (u32)block_max(s.bins, top);
        const Softmax softmax(c, top);
        u64 weight[PER_THREAD], own = 0;
#pragma unroll
        for (int i = 0; i < PER_THREAD; ++i) {
            weight[i] = rank[i] != 0 ? softmax.weight(rank[i]) : 0;
            own += weight[i];
        }
        const u64 sum = block_sum(s.bins, own);
        const int level = ladder.level_of(top);
        if (plan.leveled) {
            put_levels(s.bins, ladder, level, rank, weight, (u32)first, sums + blockIdx.x * LEVELS, sorted + base);
        }
        if (thread == 0) heads[blockIdx.x] = Head{sum, top, level};
    }

    // The last block to arrive goes on.
    __syncthreads();
    if (thread == 0) {
        u32* const ticket = (u32*)scratch;
        __threadfence();
        s.arrived = atomicAdd(ticket, 1u);
        if (s.arrived == gridDim.x - 1) *ticket = 0;
    }
    __syncthreads();
    if (s.arrived != gridDim.x - 1) return;
    __threadfence();
    // A group goes with others to one thread.
    const int groups = blocks * WARPS;
    best = 0;
#pragma unroll
    for (int i = 0; i < ceil_div(MOST_GROUPS, THREADS); ++i) {
        const int group = i * THREADS + thread;
        best = max(best, group < groups ? group_best[group] : 0);
    }
    Head head = {0, 0, 0};
    if (plan.weighed && thread < blocks) head = heads[thread];
    top = (u32)block_max(s.bins, best);
    const Softmax softmax(c, top);
    const double factor = head.sum > 0 ? softmax.factor(head.top) : 0.0;
    const u64 mass = (u64)((double)head.sum * factor);

    u32 id = NONE;
    if (plan.all) {
        id = draw_of_all(s, c, ranks, head, factor, mass);
    } else {
        const Listed each{s.listing, ranks, blocks * SLICE};
        const u64 least = least_of(c);
        Stage stage = c.top_k > 0 ? Stage::TopK : plan.leveled ? Stage::TopP : Stage::Draw;
        // What is listed: the tokens down to a level or, where they are many, of it alone.
        int level = 0;
        bool many = false;
        if (c.top_k > 0) {
            const u32 cut = cut_of(best, top, c.top_k);
            // Where a search leaves its key, too.
            if (thread == 0) s.bins.key = (u64)cut << ID_BITS;
            __syncthreads();
        } else if (plan.leveled) {
            const u64 all = block_sum(s.bins, mass);
            const int start = ladder.level_of(top);
            const u64 total = add_levels(s.bins, s.levels, s.parts, sums, blocks, factor, head.level, start, all, N);
            level = level_at(s.bins, s.levels, goal_of(c.top_p, total));
            many = s.levels.members[level] > LISTED;
        }
        // Sums of weights: of all tokens where they are not what is listed, and of those above what is.
        const auto total = [&] { return plan.leveled ? s.levels.reached[LEVELS - 1] : 0ull; };
        const auto above = [&] { return many ? s.levels.before(level) : 0ull; };
        Range range = {};
        for (bool listed = false, again = false;;) {
            if (!listed) {
                const int start = ladder.level_of(top);
                const bool sorts = plan.leveled && level < LEVELS - 1;
                if (sorts) list_levels(s.listing, s.spans, s.bins, sums, sorted, blocks, start - head.level, level, many);
                // The ranks from one to the other.
                u32 from = LOWEST, to = top;
                if (c.top_k > 0) {
                    from = rank_in(s.bins.key);
                } else if (!sorts || s.listing.count > LISTED) {
#pragma unroll 1
                    for (int l = level; l >= level - (int)many; --l) {
                        const auto holds = [&](u32 r) {
                            return plan.leveled ? start - ladder.level_of(r) <= l : softmax.weight(r) >= least;
                        };
                        const u32 edge = l < 0 ? top + 1 : l >= LEVELS - 1 ? LOWEST : first_rank(LOWEST, top, holds);
                        if (l == level) {
                            from = edge;
                        } else {
                            to = edge - 1;
                        }
                    }
                }
                if (!sorts) list_ranks(s.listing, s.groups, ranks, group_best, groups, from, to);
                if (!many && s.listing.count <= SHORTEST) {
                    id = choose_short(s.list, s.listing.keys, (int)s.listing.count, c, softmax, total(), s.uniform);
                    break;
                }
                range = range_of(s.bins, each, from, to);
                listed = true;
            }
            const auto measure = [&](u64 key) {
                if (stage == Stage::TopK) return 1ull;
                const u64 w = softmax.weight(rank_in(key));
                return stage == Stage::TopP || w >= least ? w : 0ull;
            };
            const auto goal = [&](u64 all) {
                if (stage == Stage::TopK) return (u64)c.top_k;
                if (stage == Stage::TopP) return goal_of(c.top_p, plan.leveled ? total() : all) - above();
                return many ? s.draw - above() : draw_of(s.uniform, all);
            };
            const bool by_id = stage == Stage::Draw && c.top_k == 0 && !plan.leveled;
            const Found found = search(s.bins, by_id ? all_ids(N) : range, each, measure, goal);
            if (stage == Stage::Draw) {
                id = id_in(found.key);
                break;
            }
            if (stage == Stage::TopK && s.listing.count > LISTED && !again) {
                // Too many are alike, or asked for. Now the cut is known.
                listed = false;
                again = true;
            } else if (!many) {
                range.least = found.key;
                stage = stage == Stage::TopK && c.top_p < 1.0f ? Stage::TopP : Stage::Draw;
            } else if (found.sum == 0 || softmax.weight(rank_in(found.key)) < least) {
                // Min-p cuts still more: all tokens are searched.
                level = LEVELS;
                listed = many = false;
            } else {
                const u64 draw = min(draw_of(s.uniform, above() + found.sum), s.levels.reached[level]);
                if (thread == 0) s.draw = draw;
                const int drawn = level_at(s.bins, s.levels, draw);
                listed = drawn == level;
                level = drawn;
                stage = Stage::Draw;
            }
        }
    }
    if (thread == 0) {
        // Nobody reads behind the embedding whatever happens.
        id = min(id, (u32)N - 1);
        if (s.at + 1 < (u32)LEN) log[s.at + 1] = id;
        put_next(winner_of(id), s.at, next, ring);
    }
}
