// The choice among tokens of which a block sees all, by searches and nothing else.
#ifndef EDGELLM_SAMPLE_CHOOSE_CUH
#define EDGELLM_SAMPLE_CHOOSE_CUH

#include "sample/choice.cuh"
#include "sample/search.cuh"

// Every key of a token that is no better than this rank.
__device__ __forceinline__ Range all_keys(u32 top) {
    return Range{~0ull, 0, (u64)top << ID_BITS | ID_MASK};
}

// Every token, by id: the lowest first.
__device__ __forceinline__ Range all_ids(int N) {
    return Range{ID_MASK, (u64)(ID_MASK - ((u32)N - 1)), ID_MASK};
}

// Top-k, top-p, min-p, then one draw, in that order, among the keys that `each` names: those of all tokens. After a cut tokens
// are drawn in their order, else in that of their ids. Every thread gets the id.
template <typename Each>
__device__ __forceinline__ u32 choose(Bins& bins, const Choice& c, const Softmax& softmax, double uniform, int N,
                                      const Each& each) {
    Range range = all_keys(softmax.top);
    const bool ranked = c.top_k > 0 || c.top_p < 1.0f;
    const u64 least = least_of(c);
    if (c.top_k > 0) {
        range.least = search(bins, range, each, [](u64) { return 1ull; }, [&](u64) { return (u64)c.top_k; }).key;
    }
    const auto any = [&](u64 key) { return softmax.weight(rank_in(key)); };
    if (c.top_p < 1.0f) range.least = search(bins, range, each, any, [&](u64 all) { return goal_of(c.top_p, all); }).key;
    const auto likely = [&](u64 key) {
        const u64 w = any(key);
        return w >= least ? w : 0ull;
    };
    const auto draw = [&](u64 all) { return draw_of(uniform, all); };
    return id_in(search(bins, ranked ? range : all_ids(N), each, likely, draw).key);
}

#endif
