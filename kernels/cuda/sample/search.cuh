// Sums and searches by one block of THREADS threads. Every thread of the block must call them.
#ifndef EDGELLM_SAMPLE_SEARCH_CUH
#define EDGELLM_SAMPLE_SEARCH_CUH

#include "dialect.cuh"

#define WARPS (THREADS / WARP)
#define BIN_BITS 8
#define BINS (1 << BIN_BITS)
// A weight of up to 2^40 is added up in three parts of 14 bits: of 2^18 tokens each part of the sum fits in 32 bits, for which
// shared memory has an addition of its own.
#define PART_BITS 14
#define PARTS 3
// Keys that a thread asks for at once.
#define AHEAD 4

struct Bins {
    u32 parts[PARTS][BINS];
    u32 members[BINS];
    u64 of_warp[WARPS];
    u64 few[WARP];
    u64 measures[WARP];
    u64 above;
    u64 key;
    u64 sum;
    u32 bin;
    u32 count;
};

template <typename T>
__device__ __forceinline__ T warp_inclusive(T v) {
#pragma unroll
    for (int by = 1; by < WARP; by *= 2) {
        const T before = __shfl_up_sync(FULL_WARP, v, by);
        if ((int)(threadIdx.x % WARP) >= by) v += before;
    }
    return v;
}

template <typename T>
__device__ __forceinline__ T warp_total(T v) {
#pragma unroll
    for (int by = WARP / 2; by > 0; by /= 2) v += __shfl_xor_sync(FULL_WARP, v, by);
    return v;
}

template <typename T>
__device__ __forceinline__ T warp_max(T v) {
#pragma unroll
    for (int by = WARP / 2; by > 0; by /= 2) v = max(v, (T)__shfl_xor_sync(FULL_WARP, v, by));
    return v;
}

// What each warp has to say, one lane a warp, and `none` in further lanes.
__device__ __forceinline__ u64 meet_warps(Bins& bins, u64 v, u64 none) {
    const int lane = threadIdx.x % WARP;
    __syncthreads();
    if (lane == 0) bins.of_warp[threadIdx.x / WARP] = v;
    __syncthreads();
    return lane < WARPS ? bins.of_warp[lane] : none;
}

// The sum over the block, in every thread.
__device__ __forceinline__ u64 block_sum(Bins& bins, u64 v) {
    return warp_total(meet_warps(bins, warp_total(v), 0));
}

// The maximum over the block, in every thread.
__device__ __forceinline__ u64 block_max(Bins& bins, u64 v) {
    return warp_max(meet_warps(bins, warp_max(v), 0));
}

// The sum over this thread and those before it.
__device__ __forceinline__ u64 block_inclusive(Bins& bins, u64 v) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    v = warp_inclusive(v);
    const u64 of_warp = meet_warps(bins, __shfl_sync(FULL_WARP, v, WARP - 1), 0);
    return v + warp_total(lane < warp ? of_warp : 0ull);
}

// A set of keys as a function that calls `see` with each, in one thread: `key_at` gives that of place 0 to n - 1, and 0 where
// there is none. Several are asked for before the first is looked at, so that loads do not wait for each other.
template <typename KeyAt>
struct Places {
    int n;
    KeyAt key_at;

    template <typename See>
    __device__ __forceinline__ void operator()(const See& see) const {
        for (int from = threadIdx.x; from < n; from += AHEAD * THREADS) {
            u64 keys[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                const int place = from + i * THREADS;
                keys[i] = place < n ? key_at(place) : 0;
            }
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                if (keys[i] != 0) see(keys[i]);
            }
        }
    }
};

template <typename KeyAt>
__device__ __forceinline__ Places<KeyAt> over(int n, const KeyAt& key_at) {
    return Places<KeyAt>{n, key_at};
}

// The bits of a number without its leading zeros.
__device__ __forceinline__ int bits_of(u64 v) {
    const int high = __clz((int)(u32)(v >> 32));
    return 64 - (high < 32 ? high : 32 + __clz((int)(u32)v));
}

// The keys that a search looks at, by those bits of them that `mask` leaves.
struct Range {
    u64 mask, least, most;
};

struct Found {
    u64 key;
    u64 sum;  // of the measures down to this key, itself included
};

// Measures of the members of a range are added up from the largest key down: the member at which the sum reaches a goal, or
// else the last one. Those of no measure are none; without any, the least key. `goal_of_all` gives the goal, which is at least
// 1, from the sum of all. The range is cut into even bins, and on within one of them, until it holds so few that a warp looks
// at each. Masked keys are unique.
template <typename Each, typename Measure, typename GoalOf>
__device__ __forceinline__ Found search(Bins& bins, Range range, const Each& each, const Measure& measure,
                                        const GoalOf& goal_of_all) {
    const int lane = threadIdx.x % WARP;
    const auto measured = [&](u64 key) {
        const u64 at = key & range.mask;
        return at >= range.least && at <= range.most ? (u64)measure(key) : 0ull;
    };
    u64 above = 0, goal = 0;
    int count;
    do {
        const int shift = max(bits_of(range.most - range.least) - BIN_BITS, 0);
        for (int i = threadIdx.x; i < BINS; i += THREADS) {
            bins.members[i] = 0;
#pragma unroll
            for (int p = 0; p < PARTS; ++p) bins.parts[p][i] = 0;
        }
        if (threadIdx.x == 0) bins.count = 0;
        __syncthreads();
        each([&](u64 key) {
            const u64 v = measured(key);
            if (v == 0) return;
            const u32 bin = (u32)(((key & range.mask) - range.least) >> shift);
            atomicAdd(&bins.members[bin], 1u);
#pragma unroll
            for (int p = 0; p < PARTS; ++p) {
                const u32 part = (u32)(v >> p * PART_BITS) & ((1u << PART_BITS) - 1);
                if (part) atomicAdd(&bins.parts[p][bin], part);
            }
        });
        __syncthreads();
        if (threadIdx.x < WARP) {
            const auto sum_of = [&](int i) {
                return bins.parts[0][i] + ((u64)bins.parts[1][i] << PART_BITS) + ((u64)bins.parts[2][i] << 2 * PART_BITS);
            };
            // A lane has eight bins, the first lane the highest.
            constexpr int EACH = BINS / WARP;
            const int highest = BINS - 1 - EACH * lane;
            u64 own = 0;
            for (int i = 0; i < EACH; ++i) own += sum_of(highest - i);
            const u64 reached = above + warp_inclusive(own), all = __shfl_sync(FULL_WARP, reached, WARP - 1);
            if (goal == 0) goal = min(goal_of_all(all), all);
            u64 before = reached - own;
            if (before < goal && reached >= goal) {
                int bin = highest;
                u64 sum = sum_of(bin);
                while (before + sum < goal) {
                    before += sum;
                    sum = sum_of(--bin);
                }
                bins.above = before;
                bins.bin = (u32)bin;
                bins.count = bins.members[bin];
            }
        }
        __syncthreads();
        count = (int)bins.count;
        if (count == 0) return Found{range.least, 0};
        above = bins.above;
        range.least += (u64)bins.bin << shift;
        range.most = min(range.most, range.least + (1ull << shift) - 1);
        __syncthreads();
    } while (count > WARP);

    if (threadIdx.x == 0) bins.count = 0;
    __syncthreads();
    each([&](u64 key) {
        const u64 v = measured(key);
        if (v == 0) return;
        const u32 place = atomicAdd(&bins.count, 1u);
        bins.few[place] = key;
        bins.measures[place] = v;
    });
    __syncthreads();
    if (threadIdx.x < WARP) {
        const u64 key = lane < count ? bins.few[lane] : 0, own = lane < count ? bins.measures[lane] : 0;
        u64 before = above;
        for (int other = 0; other < count; ++other) {
            if ((bins.few[other] & range.mask) > (key & range.mask)) before += bins.measures[other];
        }
        if (own > 0 && before < goal && before + own >= goal) {
            bins.key = key;
            bins.sum = before + own;
        }
    }
    __syncthreads();
    return Found{bins.key, bins.sum};
}

#endif
