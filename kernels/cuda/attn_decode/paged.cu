// attn_decode / paged: attention of one token over a cache in pages that a block table finds (V81).
//
//   q  f32 [HEADS, DIM]     k, v  f16 [pages, KV_HEADS, PAGE, DIM]     out  f32 [HEADS, DIM]     len  i32 [1]
//   table  i32 [ceil(MAX_LEN / PAGE)]: the page of positions i PAGE and on; no page where none of them is in use
//   scratch  attn_decode/splits.cuh
//
// split_merged with the table between a position and its slot, so that the two timed side by side show what pages cost. The keys
// of a turn of a warp lie in one page, and the number of the next turn's page is under way while this turn's keys are: the
// chain of two loads is waited for once. DIM is 64 or 128.
//
// PAGE (a constant of the space)  positions of a page
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_decode.toml)
//   WARPS     warps in a block
//   STEP      keys that a warp has under way; divides PAGE
//   HPB       query heads of a block; a group of more takes several blocks
//   SPLITS    blocks to a set of heads, at most 256
//   MIN_KEYS  the least share of a split
#if !defined(PAGE) || !defined(WARPS) || !defined(STEP) || !defined(HPB) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_decode/paged: every tunable must be set by the build"
#endif
#include "attn_decode/splits.cuh"

static_assert(PAGE % STEP == 0 && MIN_KEYS % STEP == 0, "the keys of a turn lie in one page");

// Keys of key head `kv` of `kv_heads` in pages.
struct InPages {
    const int* const table;
    const int kv_heads, kv;
    int next;   // The page of the turn that is entered next.
    u64 first;  // The slot of key 0, if all keys lay with those of the turn.

    __device__ __forceinline__ InPages(const int* table, int kv_heads, int kv, int key, int end)
        : table(table), kv_heads(kv_heads), kv(kv), next(key < end ? table[key / PAGE] : 0), first(0) {}

    __device__ __forceinline__ void enter(int key, int then, int end) {
        first = ((u64)next * kv_heads + kv) * PAGE - key / PAGE * PAGE;
        if (then < end) next = table[then / PAGE];
    }
    __device__ __forceinline__ u64 slot(int key) const { return first + key; }
};

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
attn_decode_paged(const float* q,    // [HEADS, DIM]
                  const u16* k,      // [pages, KV_HEADS, PAGE, DIM]
                  const u16* v,      // [pages, KV_HEADS, PAGE, DIM]
                  float* out,        // [HEADS, DIM]
                  u8* scratch,       // see above
                  const int* len,    // [1]
                  const int* table,  // [ceil(MAX_LEN / PAGE)]
                  int HEADS, int KV_HEADS, int DIM) {
    __shared__ float states[WARPS * HPB * STATE];
    __shared__ u32 arrived;
    pdl_launch();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    pdl_wait();
    const Split split = split_of(blockIdx.y, len[0]);
    if (split.index >= split.active) return;
    const InPages place(table, KV_HEADS, set.kv, split.begin + (int)threadIdx.x / WARP * STEP, split.end);
    const u8 *const keys = (const u8*)k, *const values = (const u8*)v;
    if (DIM == 64) {
        attend_at<64, 16, FloatQuery<16>, false>(states, q, keys, values, nullptr, nullptr, set, split.begin, split.end, place);
    } else {
        attend_at<128, 16, FloatQuery<16>, false>(states, q, keys, values, nullptr, nullptr, set, split.begin, split.end, place);
    }
    __syncthreads();
    meet_splits(states, &arrived, out, scratch, set, split, HEADS, DIM);
}
