// Heads of keys and values appended to a cache in int8, where several blocks have parts of a head: the scale is that of all of it.
//
//   scratch  u32 [2 KV_HEADS] tickets, at the next multiple of 16 f32 [2 KV_HEADS, DIM]; zeroed once and left zeroed
//
// A block leaves its elements in scratch memory, and the last of a head rounds them: scale max|x| / 127, codes half away from
// zero, as rope_append does. Needs DIM % 4 == 0 and DIM <= 256.
#ifndef EDGELLM_DECODE_APPEND_INT8_CUH
#define EDGELLM_DECODE_APPEND_INT8_CUH

#include "quantize_a8/rounding.cuh"
#include "ticket.cuh"
#include "warp.cuh"

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

#endif
