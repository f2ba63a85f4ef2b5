// Heads of keys and values appended to a cache in int8, where several blocks have parts of a head: the scale is that of all of it,
// max|x| / 127, codes are rounded half away from zero, as rope_append does.
//
// Without clusters a block leaves its elements in scratch memory, and the last of a head rounds them. Needs DIM % 4 == 0 and
// DIM <= 256. Blocks of a cluster tell each other what their largest element is, and each rounds its own, which goes through
// no memory of the device. The emulator runs blocks one after the other and has the last round all, so that the gate on a
// device alone sees this.
//
//   scratch  u32 [2 KV_HEADS] tickets, at the next multiple of 16 f32 [2 KV_HEADS, DIM]; zeroed once and left zeroed
//   CLUSTER  blocks of a cluster, which has whole heads; 0 without clusters
#ifndef EDGELLM_DECODE_APPEND_INT8_CUH
#define EDGELLM_DECODE_APPEND_INT8_CUH

#include "quantize_a8/rounding.cuh"
#include "ticket.cuh"
#include "warp.cuh"

#if CLUSTER
#include "cluster.cuh"
#define HEAD_CLUSTER CLUSTER_OF(CLUSTER, 1, 1)
#else
#define HEAD_CLUSTER
#endif
#if CLUSTER && !defined(EDGELLM_EMULATED)
#define HEAD_MEETS_IN_CLUSTER 1
#else
#define HEAD_MEETS_IN_CLUSTER 0
#endif

// A head on its way to the cache.
struct Int8Head {
    u32* const ticket;
    float* const elements;  // [dim]
    const int dim;

    // Head `index` of `count`, those of keys before those of values.
    __device__ __forceinline__ Int8Head(u8* scratch, int index, int count, int dim)
        : ticket((u32*)scratch + index), elements((float*)(scratch + ceil_div(count * 4, 16) * 16) + index * dim), dim(dim) {}

    // Appends the head, where this part of it is the last of `parts`: `codes` is its place in the cache, `scale` that of its
    // scale. The lanes of a warp call this together when some of them have put the part into `elements`.
    __device__ __forceinline__ void append(int parts, u8* codes, float* scale) const {
        const int lane = threadIdx.x % WARP;
        __syncwarp();
        u32 arrived = 0;
        if (lane == 0) arrived = draw_ticket(ticket);
        arrived = __shfl_sync(FULL_WARP, arrived, 0);
        __syncwarp();  // A shuffle orders no memory.
        if (arrived != (u32)parts - 1) return;
        float4 v[2];
        float largest = 0.0f;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int at = (i * WARP + lane) * 4;
            v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (at < dim) v[i] = load_past_l1_16(elements + at);
            largest = fmaxf(largest, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)), fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
        }
        largest = warp_max(largest);
        const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int at = (i * WARP + lane) * 4;
            if (at >= dim) continue;
            const int a = a8_code(v[i].x, inverse), b = a8_code(v[i].y, inverse);
            const int c = a8_code(v[i].z, inverse), d = a8_code(v[i].w, inverse);
            *(u32*)(codes + at) = (u32)(a & 255) | (u32)(b & 255) << 8 | (u32)(c & 255) << 16 | (u32)(d & 255) << 24;
            *(float4*)(elements + at) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
        if (lane == 0) {
            *scale = largest / 127.0f;
            *ticket = 0;
        }
    }
};

#if HEAD_MEETS_IN_CLUSTER
// Rounds this block's part of a head: the pair of each of the first `pairs` threads, at most a warp, goes to `codes` and
// `across` behind it, the scale of the head to `scale`. The other threads have zeros. `parts` blocks in a row have a head. Every
// thread of the cluster calls it once, and has called `cluster_arrive` before.
__device__ __forceinline__ void append_part(float2 pair, int pairs, int parts, u8* codes, int across, float* scale) {
    __shared__ __align__(8) float largest_of[2 * CLUSTER];
    const int rank = blockIdx.x % CLUSTER;
    const float mine = warp_max(fmaxf(fabsf(pair.x), fabsf(pair.y)));
    __syncwarp();  // Barriers of a cluster want whole warps.
    // All blocks of the cluster have started, and may be written to.
    cluster_wait();
    if (threadIdx.x < CLUSTER) store_in_block_8(largest_of + 2 * rank, make_float2(mine, 0.0f), threadIdx.x);
    __syncwarp();
    cluster_arrive();
    cluster_wait();
    if ((int)threadIdx.x >= pairs) return;
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < CLUSTER; ++i) {
        if (i / parts == rank / parts) largest = fmaxf(largest, largest_of[2 * i]);
    }
    const float inverse = largest == 0.0f ? 0.0f : 127.0f / largest;
    codes[0] = (u8)a8_code(pair.x, inverse);
    codes[across] = (u8)a8_code(pair.y, inverse);
    if (rank % parts == 0 && threadIdx.x == 0) *scale = largest / 127.0f;
}
#endif

#endif
