// How the blocks of a cluster bring the parts of attention of one token together: each sends its own to the others' shared
// memory.
//
//   SPLITS  blocks of the cluster     HPB, WARPS  see attn_token/parts.cuh
#ifndef EDGELLM_EXCHANGE_CUH
#define EDGELLM_EXCHANGE_CUH

#include "attn_token/parts.cuh"
#include "attn_token/slab.cuh"
#include "cluster.cuh"
#include "dialect.cuh"

static_assert(SPLITS >= 1 && SPLITS <= 16, "a cluster has at most 16 blocks");

// Results meet in groups of 32 dimensions: group g in block g % SPLITS, as the one of number g / SPLITS there. A block sends each
// its part of a group, 32 values with their maximum and sum, so that nobody reads from a block that could have ended.
constexpr int GROUPS = ceil_div(HPB * MOST_DIM / 32, SPLITS);
constexpr int PART = 36;  // At 32 the maximum, behind it the sum; 16-byte aligned.
constexpr int INBOX = SPLITS * GROUPS * PART;

#ifdef EDGELLM_EMULATED
// Blocks run one after the other there: the last of a cluster finds all inboxes here and does the work of all.
static float emulated_inboxes[16][SPLITS][INBOX];
static int emulated_arrived[16];
#define INBOX_AT(inbox, at, rank) (emulated_inboxes[blockIdx.x][rank] + (at))
#else
#define INBOX_AT(inbox, at, rank) ((inbox) + (at))
#endif

// Sends what the warps of this block have to the blocks where it meets the others' parts.
__device__ __forceinline__ void send(float* inbox, const float* states, int rank, HeadSet set, int dim) {
    const int shift = dim == 64 ? 6 : 7;
    for (int i = threadIdx.x; i < set.count * dim / 4; i += THREADS) {
        const int h = i * 4 >> shift, d = i * 4 - (h << shift), group = i / 8, to = group % SPLITS;
        const Meeting all = meet(states, h);
        const int part = (rank * GROUPS + group / SPLITS) * PART;
        store_in_block_16(INBOX_AT(inbox, part + i % 8 * 4, to), meet_values(states, all, h, d), to);
        if (i % 8 == 0) store_in_block_8(INBOX_AT(inbox, part + 32, to), make_float2(all.top, all.sum), to);
    }
    (void)inbox;
}

// Merges and stores the groups of block `rank`: a warp each, a lane for each dimension.
__device__ __forceinline__ void merge_groups(const float* inbox, int rank, int active, u8* out, HeadSet set, int heads, int dim,
                                             int bits) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (int number = warp; rank + number * SPLITS < set.count * dim / 32; number += WARPS) {
        float tops[SPLITS], sums[SPLITS], values[SPLITS];
#pragma unroll
        for (int p = 0; p < SPLITS; ++p) {
            const float* const part = INBOX_AT(inbox, (p * GROUPS + number) * PART, rank);
            const bool there = p < active;
            const float2 of_part = there ? *(const float2*)(part + 32) : make_float2(-F32_MAX, 0.0f);
            tops[p] = of_part.x;
            sums[p] = of_part.y;
            values[p] = there ? part[lane] : 0.0f;
        }
        float top = -F32_MAX, sum = 0.0f, value = 0.0f;
#pragma unroll
        for (int p = 0; p < SPLITS; ++p) top = fmaxf(top, tops[p]);
#pragma unroll
        for (int p = 0; p < SPLITS; ++p) {
            const float factor = exp2f(tops[p] - top);
            sum += sums[p] * factor;
            value += values[p] * factor;
        }
        const int i = (rank + number * SPLITS) * 32 + lane;
        store_result(out, heads * dim, set.first * dim + i, value / sum, bits);
    }
    (void)inbox;
}

// Ends the kernel: every thread of the block calls it when its warp's part is in `states`, shared memory of [WARPS, STATES_APART]
// floats at a multiple of 16, at the start of each [HPB, STATE]. `inbox` is shared memory of INBOX floats. Threads have called
// `cluster_arrive` once before.
__device__ __forceinline__ void exchange(const float* states, float* inbox, u8* out, HeadSet set, int rank, Share share, int heads,
                                         int dim, int bits) {
    __syncthreads();
    // All blocks of the cluster have started, and may be written to.
    cluster_wait();
    // All have the same length, so either all are alone or all meet.
    if (share.active == 1) {
        if (rank == 0) store_alone(states, out, set, heads, dim, bits);
        return;
    }
    if (rank < share.active) send(inbox, states, rank, set, dim);
#ifdef EDGELLM_EMULATED
    __syncthreads();
    if (threadIdx.x == 0) ++emulated_arrived[blockIdx.x];
    __syncthreads();
    if (emulated_arrived[blockIdx.x] < SPLITS) return;
    for (int each = 0; each < SPLITS; ++each) merge_groups(inbox, each, share.active, out, set, heads, dim, bits);
    __syncthreads();
    if (threadIdx.x == 0) emulated_arrived[blockIdx.x] = 0;
#else
    __syncwarp();
    cluster_arrive();
    cluster_wait();
    merge_groups(inbox, rank, share.active, out, set, heads, dim, bits);
#endif
}

#endif
