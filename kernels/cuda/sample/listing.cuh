// Tokens that matter, listed from groups of which only the best is known.
#ifndef EDGELLM_SAMPLE_LISTING_CUH
#define EDGELLM_SAMPLE_LISTING_CUH

#include "sample/choice.cuh"
#include "sample/levels.cuh"
#include "sample/search.cuh"
#include "sample/short_list.cuh"

#define PER_THREAD 4
#define SLICE (PER_THREAD * THREADS)
// Tokens of a warp, of which the best is known.
#define GROUP (PER_THREAD * WARP)
#define MOST_TOKENS 262144
#define MOST_GROUPS (MOST_TOKENS / GROUP)
#define MOST_BLOCKS (MOST_TOKENS / SLICE)
static_assert(ASKED * PER_THREAD <= 32, "a thread has a bit for each of its tokens");
static_assert(SLICE <= 2048, "sums by level have room for so many tokens");
static_assert(MOST_BLOCKS <= THREADS, "the last block has a thread for every block");
// Tokens that are listed at most. On the emulator so few that small vocabularies go every way.
#ifdef EDGELLM_EMULATED
#define LISTED 384
#else
#define LISTED 4096
#endif
#define NONE 0xffffffffu

// Ranks for which there is room where a list would be.
#define STAGED (2 * LISTED)

struct Listing {
    union {
        __align__(16) u64 keys[LISTED];
        u32 staged[STAGED];
    };
    u32 count;  // may be more than there is room for
};

struct Groups {
    u16 ids[MOST_GROUPS];
    u32 count;
};

// Of each block, where what is listed begins among its tokens and in the list, and how many they are.
struct Spans {
    u32 first[MOST_BLOCKS];
    u32 place[MOST_BLOCKS];
    u32 count[MOST_BLOCKS];
};

// A place in a list for each lane that asks for one.
__device__ __forceinline__ u32 place_in(u32& count, bool asks) {
    const u32 lane = threadIdx.x % WARP, asking = __ballot_sync(FULL_WARP, asks);
    u32 place = 0;
    if (lane == 0 && asking != 0) place = atomicAdd(&count, (u32)__popc(asking));
    return __shfl_sync(FULL_WARP, place, 0) + (u32)__popc(asking & ((1u << lane) - 1));
}

// Lists the tokens from rank `least` to `most`, of the groups whose best is not below.
__device__ __forceinline__ void list_ranks(Listing& listing, Groups& groups, const u32* ranks, const u32* group_best,
                                           int n_groups, u32 least, u32 most) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    __syncthreads();
    if (threadIdx.x == 0) listing.count = groups.count = 0;
    __syncthreads();
    for (int from = 0; from < n_groups; from += THREADS) {
        const int group = from + (int)threadIdx.x;
        const bool in = group < n_groups && group_best[group] >= least;
        const u32 place = place_in(groups.count, in);
        if (in) groups.ids[place] = (u16)group;
    }
    __syncthreads();
    const int n = least <= most ? (int)groups.count : 0;
    for (int from = warp; from < n; from += ASKED * WARPS) {
        u32 rank[ASKED][PER_THREAD], in = 0;
#pragma unroll
        for (int i = 0; i < ASKED; ++i) {
            const int at = from + i * WARPS;
            const uint4 quad = at < n ? load_16(ranks + groups.ids[at] * GROUP + PER_THREAD * lane) : make_uint4(0, 0, 0, 0);
            rank[i][0] = quad.x;
            rank[i][1] = quad.y;
            rank[i][2] = quad.z;
            rank[i][3] = quad.w;
        }
#pragma unroll
        for (int i = 0; i < ASKED * PER_THREAD; ++i) {
            in |= (u32)(rank[i / PER_THREAD][i % PER_THREAD] - least <= most - least) << i;
        }
        const u32 own = (u32)__popc(in), through = warp_inclusive(own);
        const u32 all = __shfl_sync(FULL_WARP, through, WARP - 1);
        if (all == 0) continue;
        u32 place = lane == 0 ? atomicAdd(&listing.count, all) : 0;
        place = __shfl_sync(FULL_WARP, place, 0) + through - own;
#pragma unroll
        for (int i = 0; i < ASKED * PER_THREAD; ++i) {
            if ((in >> i & 1) == 0) continue;
            const int id = groups.ids[from + i / PER_THREAD * WARPS] * GROUP + PER_THREAD * lane + i % PER_THREAD;
            if (place < LISTED) listing.keys[place] = key_of(rank[i / PER_THREAD][i % PER_THREAD], (u32)id);
            ++place;
        }
    }
    __syncthreads();
}

// Lists the tokens down to a level, or of it `alone`; not the last level. Thread b says how far the best of block b is below
// the best of all. `sums` and `sorted` are those of put_levels.
__device__ __forceinline__ void list_levels(Listing& listing, Spans& spans, Bins& bins, const u64* sums, const u64* sorted,
                                            int blocks, int below, int level, bool alone) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, at = level - below;
    u32 first = 0, count = 0;
    if ((int)threadIdx.x < blocks && at >= 0) {
        const u64* const down_to = sums + (int)threadIdx.x * LEVELS + at;
        const u32 through = (u32)(down_to[0] >> MASS_BITS);
        if (alone && at > 0) first = (u32)(down_to[-1] >> MASS_BITS);
        count = through - first;
    }
    const u64 through = block_inclusive(bins, count);
    if ((int)threadIdx.x < blocks) {
        spans.first[threadIdx.x] = first;
        spans.place[threadIdx.x] = (u32)through - count;
        spans.count[threadIdx.x] = count;
    }
    if (threadIdx.x == THREADS - 1) listing.count = (u32)through;
    __syncthreads();
    if (listing.count > LISTED) return;
    // Two keys a lane of several blocks at once, and of few blocks more.
    constexpr int AT_ONCE = 2;
    for (int from = warp; from < blocks; from += AT_ONCE * WARPS) {
        u64 keys[AT_ONCE][2];
#pragma unroll
        for (int i = 0; i < 2 * AT_ONCE; ++i) {
            const int block = from + i / 2 * WARPS, entry = lane + i % 2 * WARP;
            const bool in = block < blocks && entry < (int)spans.count[block];
            keys[i / 2][i % 2] = in ? sorted[block * SLICE + (int)spans.first[block] + entry] : 0;
        }
#pragma unroll
        for (int i = 0; i < 2 * AT_ONCE; ++i) {
            const int block = from + i / 2 * WARPS, entry = lane + i % 2 * WARP;
            if (keys[i / 2][i % 2] != 0) listing.keys[spans.place[block] + entry] = keys[i / 2][i % 2];
        }
        for (int i = 0; i < AT_ONCE; ++i) {
            const int block = from + i * WARPS;
            if (block >= blocks) break;
            for (int entry = lane + 2 * WARP; entry < (int)spans.count[block]; entry += WARP) {
                listing.keys[spans.place[block] + entry] = sorted[block * SLICE + (int)spans.first[block] + entry];
            }
        }
    }
    __syncthreads();
}

// What is listed, or all tokens where that is more than there is room for: then their ranks go through shared memory. As a
// function that calls `see` with each key, in one thread.
struct Listed {
    Listing& listing;
    const u32* ranks;
    int places;

    template <typename See>
    __device__ __forceinline__ void operator()(const See& see) const {
        constexpr int QUADS = ceil_div(STAGED / 4, THREADS);
        const bool fits = listing.count <= LISTED;
        const int n = fits ? (int)listing.count : places;
        for (int base = 0; base < n; base += STAGED) {
            const int here = min(n - base, STAGED);
            if (!fits) {
                uint4 quads[QUADS];
#pragma unroll
                for (int i = 0; i < QUADS; ++i) {
                    const int at = 4 * (i * THREADS + (int)threadIdx.x);
                    quads[i] = at < here ? load_16(ranks + base + at) : make_uint4(0, 0, 0, 0);
                }
                __syncthreads();
#pragma unroll
                for (int i = 0; i < QUADS; ++i) {
                    const int at = 4 * (i * THREADS + (int)threadIdx.x);
                    if (at < here) *(uint4*)(listing.staged + at) = quads[i];
                }
                __syncthreads();
            }
#pragma unroll 1
            for (int i = threadIdx.x; i < here; i += THREADS) {
                const u64 key = fits ? listing.keys[i] : key_of(listing.staged[i], (u32)(base + i));
                if (rank_in(key) != 0) see(key);
            }
        }
    }
};

// From the least to the largest of the keys whose ranks lie in a range; of none, no key lies between.
template <typename Each>
__device__ __forceinline__ Range range_of(Bins& bins, const Each& each, u32 from, u32 to) {
    // The complement of the least is the largest of complements.
    u64 least = 0, most = 0;
    each([&](u64 key) {
        if (rank_in(key) < from || rank_in(key) > to) return;
        least = max(least, ~key);
        most = max(most, key);
    });
    least = ~block_max(bins, least);
    return Range{~0ull, least, block_max(bins, most)};
}

#endif
