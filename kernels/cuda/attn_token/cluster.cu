// attn_token / cluster: attention of one token on tensor cores, keys split over the blocks of a cluster, which read each
// other's parts from shared memory.
//
//   q  f32 [HEADS, DIM]     k, v  [KV_HEADS, MAX_LEN, DIM]: f16 where KV is 16, else int8 with scales f32 [KV_HEADS, MAX_LEN]
//   out  a slab a8/32 of HEADS * DIM where OUT is 8, else f32 [HEADS, DIM]     len  i32 [1], 1 to MAX_LEN
//
// Tiles of keys on matrix instructions (attn_token/tiles.cuh). The blocks of a set of heads are a cluster: a barrier among them
// stands for the counter, the fences and the detour through scratch memory of attn_token/mma, and each of them merges a share
// of the result. The share of a block is at least MIN_KEYS keys; where one block has them all there is no barrier.
//
// Tunables (set with -D; values and constraints in variants/spaces/attn_token.toml)
//   WARPS     warps in a block
//   TILES     tiles of 16 keys that a warp has under way
//   SPLITS    blocks of a cluster, at most 16; above 8 a device need not have room for one
//   MIN_KEYS  the least share of a block
#if !defined(WARPS) || !defined(TILES) || !defined(SPLITS) || !defined(MIN_KEYS)
#error "attn_token/cluster: every tunable must be set by the build"
#endif
#include "attn_token/tiles.cuh"  // Says how many heads a block has.

#include "attn_token/slab.cuh"
#include "cluster.cuh"
#include "pdl.cuh"

static_assert(SPLITS >= 1 && SPLITS <= 16, "a cluster has at most 16 blocks");

#ifdef EDGELLM_EMULATED
// Blocks run one after the other there: the last of a cluster finds the parts of the others here and does the work of all.
static float emulated_parts[16][SPLITS][HPB * STATE];
static int emulated_arrived[16];
#define PART_OF(parts, at, rank) (emulated_parts[blockIdx.x][rank][at])
#else
#define PART_OF(parts, at, rank) load_of_block((parts) + (at), rank)
#endif

// Merges and stores groups `rank`, `rank` + SPLITS, ... of 32 dimensions: a warp each, a lane for each dimension.
__device__ __forceinline__ void merge_groups(const float* parts, int rank, u8* out, HeadSet set, int heads, int dim, int bits) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, shift = dim == 64 ? 6 : 7;
    (void)parts;
    for (int group = rank + warp * SPLITS; group < set.count * dim / 32; group += WARPS * SPLITS) {
        const int i = group * 32 + lane, h = i >> shift, d = i - (h << shift);
        float tops[SPLITS], sums[SPLITS], values[SPLITS];
#pragma unroll
        for (int p = 0; p < SPLITS; ++p) {
            tops[p] = PART_OF(parts, h * STATE + MOST_DIM, p);
            sums[p] = PART_OF(parts, h * STATE + MOST_DIM + 1, p);
            values[p] = PART_OF(parts, h * STATE + d, p);
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
        store_result(out, heads * dim, set.first * dim + i, value / sum, bits);
    }
}

extern "C" __global__ void CLUSTER_OF(1, SPLITS, 1) __launch_bounds__(THREADS)
attn_token_cluster(const float* q,          // [HEADS, DIM]
                   const u8* k,             // see above
                   const u8* v,             // see above
                   const float* k_scale,    // [KV_HEADS, MAX_LEN], or null where KV is 16
                   const float* v_scale,    // the same
                   u8* out,                 // see above
                   u8* scratch,             // unused
                   const int* len,          // [1]
                   int HEADS, int KV_HEADS, int DIM, int MAX_LEN, int KV, int OUT) {
    __shared__ __align__(16) float states[WARPS * HPB * STATE];
    __shared__ __align__(16) float parts[HPB * STATE];
    (void)scratch;
    pdl_launch();
    const HeadSet set = head_set(blockIdx.x, HEADS, KV_HEADS);
    const int rank = blockIdx.y;
    const Share share = attend_any(states, q, k, v, k_scale, v_scale, len, set, rank, MAX_LEN, DIM, KV);
    __syncthreads();
    // All blocks of the cluster have the same length, so either all are alone or all meet.
    if (share.active == 1) {
        if (rank == 0) store_alone(states, out, set, HEADS, DIM, OUT);
        return;
    }
    const int shift = DIM == 64 ? 6 : 7;
    for (int i = threadIdx.x; i < set.count * DIM / 4; i += THREADS) {
        const int h = i * 4 >> shift, d = i * 4 - (h << shift);
        Meeting all = {-F32_MAX, 0.0f, {}};
        float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (rank < share.active) {
            all = meet(states, h);
            value = meet_values(states, all, h, d);
        }
        *(float4*)(parts + h * STATE + d) = value;
        if (d == 0) *(float2*)(parts + h * STATE + MOST_DIM) = make_float2(all.top, all.sum);
    }
#ifdef EDGELLM_EMULATED
    __syncthreads();
    for (int i = threadIdx.x; i < HPB * STATE; i += THREADS) emulated_parts[blockIdx.x][rank][i] = parts[i];
    __syncthreads();
    if (threadIdx.x == 0) ++emulated_arrived[blockIdx.x];
    __syncthreads();
    if (emulated_arrived[blockIdx.x] < SPLITS) return;
    for (int each = 0; each < SPLITS; ++each) merge_groups(parts, each, out, set, HEADS, DIM, OUT);
    __syncthreads();
    if (threadIdx.x == 0) emulated_arrived[blockIdx.x] = 0;
#else
    cluster_arrive();
    cluster_wait();
    merge_groups(parts, rank, out, set, HEADS, DIM, OUT);
    // No block ends while another reads its part.
    cluster_arrive();
    cluster_wait();
#endif
}
