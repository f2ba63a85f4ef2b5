// The choice among tokens of which a block sees all, by searches and nothing else.
#ifndef EDGELLM_SAMPLE_CHOOSE_CUH
#define EDGELLM_SAMPLE_CHOOSE_CUH

#include "sample/choice.cuh"
#include "sample/search.cuh"

// Top-k, top-p, min-p, then one draw, in that order, among `n` places of a set (see each). They hold all tokens, or all from
// some key down to which no cut reaches; `total` is the sum of all weights where that is not their own, else 0. After a cut
// tokens are drawn in their order, else in that of their ids. Every thread gets the id.
template <typename KeyAt>
__device__ __forceinline__ u32 choose(Bins& bins, const Choice& c, const Softmax& softmax, u64 total, double uniform, int n,
                                      const KeyAt& key_at) {
    const bool ranked = c.top_k > 0 || c.top_p < 1.0f;
    const u64 least = least_of(c);
    u64 last = 0;
    const auto any = [&](u64 key) { return key >= last ? softmax.weight(rank_in(key)) : 0ull; };
    const auto likely = [&](u64 key) {
        const u64 w = any(key);
        return w >= least ? w : 0ull;
    };
    if (c.top_k > 0) last = search<true>(bins, KEY_BITS, c.top_k, false, n, key_at, any);
    if (c.top_p < 1.0f) {
        if (total == 0) total = sum_over(bins, n, key_at, any);
        last = search<false>(bins, KEY_BITS, goal_of(c.top_p, total), false, n, key_at, any);
    }
    const u64 draw = draw_of(uniform, sum_over(bins, n, key_at, likely));
    const u64 key = search<false>(bins, ranked ? KEY_BITS : ID_BITS, draw, true, n, key_at, likely);
    // Where they are drawn in the order of ids, nothing else is found.
    return id_in(key);
}

#endif
