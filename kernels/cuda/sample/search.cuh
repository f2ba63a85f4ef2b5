// Sums and searches by one block of THREADS threads. Every thread of the block must call them.
#ifndef EDGELLM_SAMPLE_SEARCH_CUH
#define EDGELLM_SAMPLE_SEARCH_CUH

#include "dialect.cuh"

#define BINS 256
// A weight of up to 2^40 is added up in three parts of 14 bits: of 2^18 tokens each part of the sum fits in 32 bits, for which
// shared memory has an addition of its own.
#define PART_BITS 14
#define PARTS 3
// Keys that a thread asks for at once.
#define AHEAD 8

struct Bins {
    u32 parts[PARTS][BINS];
    u64 of_warp[THREADS / WARP];
    u64 above;
    u32 bin;
    u32 whole;
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

// The sum over the block, in every thread.
__device__ __forceinline__ u64 block_sum(Bins& bins, u64 v) {
    v = warp_total(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0) bins.of_warp[threadIdx.x / WARP] = v;
    __syncthreads();
    v = 0;
#pragma unroll
    for (int w = 0; w < THREADS / WARP; ++w) v += bins.of_warp[w];
    return v;
}

// The maximum over the block, in every thread.
__device__ __forceinline__ u64 block_max(Bins& bins, u64 v) {
#pragma unroll
    for (int by = WARP / 2; by > 0; by /= 2) v = max(v, (u64)__shfl_xor_sync(FULL_WARP, v, by));
    __syncthreads();
    if (threadIdx.x % WARP == 0) bins.of_warp[threadIdx.x / WARP] = v;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < THREADS / WARP; ++w) v = max(v, bins.of_warp[w]);
    return v;
}

// Calls `see` with the keys of the members of a set, each in one thread. `key_at` gives the key of place 0 to n - 1 and 0 where
// there is none. Several are asked for before the first is looked at, so that loads do not wait for each other.
template <typename KeyAt, typename See>
__device__ __forceinline__ void each(int n, const KeyAt& key_at, const See& see) {
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

// The sum of the measures of all members, in every thread.
template <typename KeyAt, typename Measure>
__device__ __forceinline__ u64 sum_over(Bins& bins, int n, const KeyAt& key_at, const Measure& measure) {
    u64 sum = 0;
    each(n, key_at, [&](u64 key) { sum += measure(key); });
    return block_sum(bins, sum);
}

// Members are counted from the largest key down, or their measures added up: the key of the member at which the sum reaches
// `goal`, which is at least 1 and at most the sum of all. Keys are compared by their lowest
// `bits` alone. Eight of them at a time: sums for each of their values, then on within one value. Where `exact` is not
// asked for the answer may be less than that key, and still above those of all further members but such of no measure.
template <bool COUNT, typename KeyAt, typename Measure>
__device__ __forceinline__ u64 search(Bins& bins, int bits, u64 goal, bool exact, int n, const KeyAt& key_at,
                                      const Measure& measure) {
    const u64 mask = (1ull << bits) - 1;
    u64 prefix = 0;
    int shift = bits;
    while (shift > 0) {
        shift -= 8;
        for (int i = threadIdx.x; i < (COUNT ? 1 : PARTS) * BINS; i += THREADS) bins.parts[i / BINS][i % BINS] = 0;
        __syncthreads();
        each(n, key_at, [&](u64 key) {
            if ((key & mask) >> shift >> 8 != prefix) return;
            const u32 bin = (u32)(key >> shift) % BINS;
            if (COUNT) {
                atomicAdd(&bins.parts[0][bin], 1u);
            } else {
                const u64 v = measure(key);
#pragma unroll
                for (int p = 0; p < PARTS; ++p) {
                    const u32 part = (u32)(v >> p * PART_BITS) & ((1u << PART_BITS) - 1);
                    if (part) atomicAdd(&bins.parts[p][bin], part);
                }
            }
        });
        __syncthreads();
        if (threadIdx.x < WARP) {
            const auto sum_of = [&](int i) {
                u64 sum = bins.parts[0][i];
                if (!COUNT) sum += ((u64)bins.parts[1][i] << PART_BITS) + ((u64)bins.parts[2][i] << 2 * PART_BITS);
                return sum;
            };
            // A lane has eight values, the first lane the highest.
            const int highest = BINS - 1 - 8 * (int)threadIdx.x;
            u64 own = 0;
#pragma unroll
            for (int i = 0; i < 8; ++i) own += sum_of(highest - i);
            const u64 reached = warp_inclusive(own);
            u64 above = reached - own;
            if (above < goal && reached >= goal) {
                int bin = highest;
                u64 sum = sum_of(bin);
                while (above + sum < goal) {
                    above += sum;
                    sum = sum_of(--bin);
                }
                bins.above = above;
                bins.bin = (u32)bin;
                bins.whole = above + sum == goal;
            }
        }
        __syncthreads();
        goal -= bins.above;
        prefix = prefix << 8 | bins.bin;
        if (!exact && bins.whole) break;
    }
    return prefix << shift;
}

#endif
