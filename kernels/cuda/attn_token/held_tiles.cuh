// Tiles of 16 keys, or of their values, in shared memory as a lane wants them: its own pieces of 16 bytes, as those that
// attn_token/tiles.cuh has in registers. Lanes share nothing, so that no barrier stands between a copy and a read, and no two
// meet in a bank.
#ifndef EDGELLM_HELD_TILES_CUH
#define EDGELLM_HELD_TILES_CUH

#include "async_copy.cuh"
#include "attn_token/tiles.cuh"

// 16 bytes of this thread's own in shared memory. Reads keep their order among themselves: brought forward they would take
// registers that are spoken for. (PTX: ld)
__device__ __forceinline__ uint4 read_held(const u8* at) {
#ifdef EDGELLM_EMULATED
    return *(const uint4*)at;
#else
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"((u32)__cvta_generic_to_shared(at)));
    return v;
#endif
}

// Sixteen keys of f16.
template <int DIM>
struct HeldKeys {
    static constexpr int PIECES = 2 * (DIM / 32), BYTES = PIECES * WARP * 16;
    u8* const mine;  // of this lane

    __device__ __forceinline__ u8* piece(int half, int i) const { return mine + (half * (DIM / 32) + i) * (WARP * 16); }

    // Starts the copies of those rows, counted from `first`, that are among [from, to).
    __device__ __forceinline__ void fetch(const u8* k, u64 slots, int first, int from, int to) const {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int key = first + g + 8 * half;
            if (key < from || key >= to) continue;
#pragma unroll
            for (int i = 0; i < DIM / 32; ++i) copy_async_16(piece(half, i), k + ((slots + key) * DIM + 8 * (4 * i + t)) * 2);
        }
    }
};

// Scores of COUNT tiles at once, each as Tile::score: their chains of products run side by side. `mine` is where this lane has
// the first of them, and the others lie behind it.
template <int DIM, int COUNT, class Q>
__device__ __forceinline__ void score_held(float (*scores)[4], u8* mine, const Q& queries) {
    float others[COUNT][4] = {};
#pragma unroll
    for (int h = 0; h < COUNT; ++h) scores[h][0] = scores[h][1] = scores[h][2] = scores[h][3] = 0.0f;
#pragma unroll
    for (int i = 0; i < DIM / 32; ++i) {
        const uint4 query = queries.at(i);
        const u32 with_first[2] = {query.x, query.y}, with_second[2] = {query.z, query.w};
#pragma unroll
        for (int h = 0; h < COUNT; ++h) {
            const HeldKeys<DIM> tile = {mine + h * HeldKeys<DIM>::BYTES};
            const uint4 a = read_held(tile.piece(0, i)), b = read_held(tile.piece(1, i));
            const u32 first[4] = {a.x, b.x, a.y, b.y}, second[4] = {a.z, b.z, a.w, b.w};
            mma_f16_k16(scores[h], first, with_first);
            mma_f16_k16(others[h], second, with_second);
        }
    }
#pragma unroll
    for (int h = 0; h < COUNT; ++h) {
#pragma unroll
        for (int j = 0; j < 4; ++j) scores[h][j] += others[h][j];
    }
}

// Sixteen values of f16.
template <int DIM>
struct HeldValues {
    static constexpr int PIECES = 4 * (DIM / 64), BYTES = PIECES * WARP * 16;
    u8* const mine;  // of this lane

    __device__ __forceinline__ u8* piece(int j, int i) const { return mine + (j * (DIM / 64) + i) * (WARP * 16); }

    // As HeldKeys::fetch, with zeros for rows from `end` on.
    __device__ __forceinline__ void fetch(const u8* v, u64 slots, int first, int from, int to, int end) const {
        const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int key = first + 2 * t + j % 2 + 8 * (j / 2);
#pragma unroll
            for (int i = 0; i < DIM / 64; ++i) {
                if (key >= from && key < to) copy_async_16(piece(j, i), v + ((slots + key) * DIM + 8 * (8 * i + g)) * 2);
                else if (key >= end) *(uint4*)piece(j, i) = make_uint4(0, 0, 0, 0);
            }
        }
    }

    // As Tile::add.
    __device__ __forceinline__ void add(float (&acc)[DIM / 16][4], const float (&weights)[4]) const {
        add_values<DIM>(acc, weights, [&](int j, int i) { return read_held(piece(j, i)); });
    }
};

#endif
