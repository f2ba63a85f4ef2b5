// The choice among few tokens: they are sorted, by counting for each how many stand before it, and one warp does the rest.
#ifndef EDGELLM_SAMPLE_SHORT_LIST_CUH
#define EDGELLM_SAMPLE_SHORT_LIST_CUH

#include "sample/choice.cuh"
#include "sample/search.cuh"

// As many tokens as are sorted; beyond, searches are faster.
#define SHORTEST 256

struct ShortList {
    u64 keys[SHORTEST];
    u64 weights[SHORTEST];
    u32 before[SHORTEST];
    u32 id;
};

// The first place at which the sum of `weight_of` reaches `goal`, or the last place of all. One warp calls it.
template <typename WeightOf>
__device__ __forceinline__ int place_of(int count, u64 goal, const WeightOf& weight_of) {
    u64 before = 0;
    for (int from = 0; from < count; from += WARP) {
        const int i = from + (int)(threadIdx.x % WARP);
        const u64 reached = before + warp_inclusive(i < count ? weight_of(i) : 0);
        const u32 beyond = __ballot_sync(FULL_WARP, i < count && reached >= goal);
        if (beyond) return from + __ffs((int)beyond) - 1;
        before = __shfl_sync(FULL_WARP, reached, WARP - 1);
    }
    return count - 1;
}

// The sum of `weight_of` over all places, in every lane. One warp calls it.
template <typename WeightOf>
__device__ __forceinline__ u64 sum_of(int count, const WeightOf& weight_of) {
    u64 sum = 0;
    for (int i = threadIdx.x % WARP; i < count; i += WARP) sum += weight_of(i);
    return warp_total(sum);
}

// As choose, of up to SHORTEST keys in shared memory. Every thread of the block calls it and gets the id.
__device__ __forceinline__ u32 choose_short(ShortList& list, const u64* keys, int count, const Choice& c,
                                            const Softmax& softmax, u64 total, double uniform) {
    const bool ranked = c.top_k > 0 || c.top_p < 1.0f;
    const u64 mask = ranked ? ~0ull : (u64)ID_MASK;
    for (int i = threadIdx.x; i < count; i += THREADS) list.before[i] = 0;
    __syncthreads();
    // Where there are more threads than keys, several count for one key, each against a part of the others.
    const int parts = max(THREADS / count, 1);
    for (int t = threadIdx.x; t < count * parts; t += THREADS) {
        const int mine = t % count;
        const u64 key = keys[mine] & mask;
        u32 before = 0;
        for (int other = t / count; other < count; other += parts) before += (keys[other] & mask) > key;
        atomicAdd(&list.before[mine], before);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += THREADS) {
        const u32 place = list.before[i];
        list.keys[place] = keys[i];
        list.weights[place] = softmax.weight(rank_in(keys[i]));
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        const u64 least = least_of(c);
        const auto any = [&](int i) { return list.weights[i]; };
        const auto likely = [&](int i) { return list.weights[i] >= least ? list.weights[i] : 0ull; };
        int kept = c.top_k > 0 ? min(count, (int)c.top_k) : count;
        if (c.top_p < 1.0f) kept = place_of(kept, goal_of(c.top_p, total > 0 ? total : sum_of(kept, any)), any) + 1;
        const int place = place_of(kept, draw_of(uniform, sum_of(kept, likely)), likely);
        if (threadIdx.x == 0) list.id = id_in(list.keys[place]);
    }
    __syncthreads();
    return list.id;
}

#endif
