// Weights by level: even steps of logits times the inverse temperature, a sixteenth of an octave of weight each. Levels are
// whole numbers that do not depend on other tokens, so that blocks that know nothing of each other have them in common.
#ifndef EDGELLM_SAMPLE_LEVELS_CUH
#define EDGELLM_SAMPLE_LEVELS_CUH

#include "sample/choice.cuh"
#include "sample/search.cuh"

#define LEVELS BINS
#define PER_OCTAVE 16
static_assert(THREADS % LEVELS == 0, "every level has a thread, or as many as every other");
// No logit is below this rank.
#define LOWEST 0x007fffffu
// Of a slice the sum of weights in a level, and above it how many there are down to it.
#define MASS_BITS 52
// The places of a weight that are added up apart.
#define LOW_BITS 20

struct Ladder {
    float steps;

    __device__ __forceinline__ explicit Ladder(const Choice& c) : steps(fminf(c.scale, F32_MAX / PER_OCTAVE) * PER_OCTAVE) {}

    // Never falls where the rank rises.
    __device__ __forceinline__ int level_of(u32 rank) const {
        const float limit = (float)(1 << 29);
        return (int)floorf(fminf(fmaxf(logit_of(rank) * steps, -limit), limit));
    }
};

// The first rank from `least` on of which `holds` is true. It is true of `most` and, once true, of all that follow. Each warp
// finds it by itself.
template <typename Holds>
__device__ __forceinline__ u32 first_rank(u32 least, u32 most, const Holds& holds) {
    const u32 lane = threadIdx.x % WARP;
    while (least < most) {
        const u32 step = (most - least) / WARP + 1;
        const int first = __ffs((int)__ballot_sync(FULL_WARP, holds(min(least + lane * step, most)))) - 1;
        if (first == 0) return least;
        const u32 fails = first > 0 ? first - 1 : WARP - 1;
        most = min(most, least + (fails + 1) * step);
        least += fails * step + 1;
    }
    return most;
}

// The tokens of a block by level, from `start` down, and what they weigh against the block's own best; the last level is left
// out, as it has most of the tokens of most blocks. `sums` are LEVELS words, `sorted` has a place for each token.
template <int N>
__device__ __forceinline__ void put_levels(Bins& bins, const Ladder& ladder, int start, const u32 (&ranks)[N],
                                           const u64 (&weights)[N], u32 first, u64* sums, u64* sorted) {
    for (int i = threadIdx.x; i < LEVELS; i += THREADS) bins.members[i] = bins.parts[0][i] = bins.parts[1][i] = 0;
    __syncthreads();
    u32 level[N], place[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        level[i] = LEVELS;
        if (weights[i] == 0) continue;
        const int below = start - ladder.level_of(ranks[i]);
        if (below >= LEVELS - 1) continue;
        level[i] = (u32)below;
        // Both parts of a sum of 2048 fit in 32 bits.
        place[i] = atomicAdd(&bins.members[below], 1u);
        atomicAdd(&bins.parts[0][below], (u32)weights[i] & ((1u << LOW_BITS) - 1));
        atomicAdd(&bins.parts[1][below], (u32)(weights[i] >> LOW_BITS));
    }
    __syncthreads();
    const u32 at = threadIdx.x % LEVELS;
    const u64 own = threadIdx.x < LEVELS ? bins.members[at] : 0, through = block_inclusive(bins, own);
    if (threadIdx.x < LEVELS) {
        sums[at] = through << MASS_BITS | (bins.parts[0][at] + ((u64)bins.parts[1][at] << LOW_BITS));
        bins.members[at] = (u32)(through - own);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (level[i] < LEVELS) sorted[bins.members[level[i]] + place[i]] = key_of(ranks[i], first + i);
    }
}

// Of all tokens, the sums of weights and the tokens down to each level, this included.
struct Levels {
    u64 reached[LEVELS];
    u32 members[LEVELS];

    __device__ __forceinline__ u64 before(int level) const { return level > 0 ? reached[level - 1] : 0; }
};

template <int BLOCKS>
struct LevelParts {
    double mass[THREADS / LEVELS][LEVELS];
    u32 members[THREADS / LEVELS][LEVELS];
    double factors[BLOCKS];
    int starts[BLOCKS];
};

// Sums up what the blocks say. Thread b knows block b: the factor of its weights and the level that it starts from. `base` is
// the level of the best token of all, and `total` the sum of all weights. Returns that sum as the levels have it.
template <int BLOCKS>
__device__ __forceinline__ u64 add_levels(Bins& bins, Levels& levels, LevelParts<BLOCKS>& parts, const u64* sums, int blocks,
                                          double factor, int start, int base, u64 total, int N) {
    // Loads that are under way at once.
    constexpr int AT_ONCE = 8, SHARES = THREADS / LEVELS;
    const int level = threadIdx.x % LEVELS, share = threadIdx.x / LEVELS;
    if ((int)threadIdx.x < blocks) {
        parts.factors[threadIdx.x] = factor;
        parts.starts[threadIdx.x] = start;
    }
    __syncthreads();
    double mass = 0.0;
    u32 members = 0;
    for (int from = share; from < blocks; from += AT_ONCE * SHARES) {
        u64 sum[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const int block = from + i * SHARES;
            const int at = block < blocks ? level - (base - parts.starts[block]) : -1;
            sum[i] = at >= 0 && level < LEVELS - 1 ? sums[block * LEVELS + at] : 0;
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            if (sum[i] == 0) continue;
            mass += (double)(sum[i] & ((1ull << MASS_BITS) - 1)) * parts.factors[from + i * SHARES];
            members += (u32)(sum[i] >> MASS_BITS);
        }
    }
    parts.mass[share][level] = mass;
    parts.members[share][level] = members;
    __syncthreads();
    // Whole numbers from here on: whatever their order, sums are the same.
    u64 own = 0;
    members = 0;
    if (threadIdx.x < LEVELS) {
        mass = 0.0;
#pragma unroll
        for (int i = 0; i < SHARES; ++i) {
            mass += parts.mass[i][level];
            members += parts.members[i][level];
        }
        own = (u64)mass;
    }
    const u64 reached = block_inclusive(bins, own);
    if (threadIdx.x < LEVELS) {
        // What no level has is below them.
        levels.reached[level] = level < LEVELS - 1 ? reached : max(reached, total);
        levels.members[level] = level < LEVELS - 1 ? members : (u32)N;
    }
    __syncthreads();
    return levels.reached[LEVELS - 1];
}

// The level at which the sum reaches `goal`, which is at least 1 and at most the sum of all.
__device__ __forceinline__ int level_at(Bins& bins, const Levels& levels, u64 goal) {
    __syncthreads();
    if (threadIdx.x < LEVELS) {
        if (levels.before(threadIdx.x) < goal && levels.reached[threadIdx.x] >= goal) bins.bin = threadIdx.x;
    }
    __syncthreads();
    return (int)bins.bin;
}

#endif
