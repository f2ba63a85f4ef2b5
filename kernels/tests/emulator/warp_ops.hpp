// Barriers, votes, shuffles and matrix products of a warp.
#ifndef EDGELLM_EMULATOR_WARP_OPS_HPP
#define EDGELLM_EMULATOR_WARP_OPS_HPP

#include "block.hpp"
#include "builtins.hpp"

inline void __syncthreads() { emulator::barrier(0); }
inline int __syncthreads_or(int p) { emulator::barrier(p); return emulator::machine.barrier_result_or; }
inline int __syncthreads_and(int p) { emulator::barrier(p); return emulator::machine.barrier_result_and; }
inline int __syncthreads_count(int p) { emulator::barrier(p); return emulator::machine.barrier_result_count; }

namespace emulator {

enum class Shuffle : int { Index, Up, Down, Xor };

// The argument packs the kind of shuffle, its width, and the operand.
inline void shuffle_lanes(Thread* lanes, unsigned mask) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        Thread& t = lanes[lane];
        const int kind = int(t.argument >> 40), width = int(t.argument >> 32 & 255), operand = int(t.argument);
        const int base = lane / width * width, place = lane % width;
        int from = place;
        bool within = true;
        switch (Shuffle(kind)) {
            case Shuffle::Index: from = operand & (width - 1); break;
            case Shuffle::Up: from = place - operand; within = from >= 0; break;
            case Shuffle::Down: from = place + operand; within = from < width; break;
            case Shuffle::Xor: from = place ^ operand; within = from < width; break;
        }
        const int source = within ? base + from : lane;
        // A lane outside of the mask has nothing to give: its value is undefined, here poison.
        t.out = mask >> source & 1 ? lanes[source].in : ~0ull;
    }
}

template <typename T>
T shuffle(Shuffle kind, unsigned mask, T value, int operand, int width) {
    static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    uint64_t in = 0;
    memcpy(&in, &value, sizeof value);
    const long long argument = (long long)(kind) << 40 | (long long)(width) << 32 | (unsigned)(operand);
    const uint64_t out = meet("a shuffle", mask, in, argument, nullptr, shuffle_lanes);
    memcpy(&value, &out, sizeof value);
    return value;
}

template <typename Fold>
void fold_lanes(Thread* lanes, unsigned mask, uint64_t start, Fold fold) {
    uint64_t value = start;
    for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1) value = fold(value, lanes[lane].in, lane);
    }
    for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1) lanes[lane].out = value;
    }
}

inline unsigned ballot(unsigned mask, int p) {
    return unsigned(meet("a vote", mask, p != 0, 0, nullptr, [](Thread* lanes, unsigned m) {
        fold_lanes(lanes, m, 0, [](uint64_t v, uint64_t in, int lane) { return v | in << lane; });
    }));
}

struct MmaF16 {
    float* d;
    const unsigned *a, *b;
    int k;
};

// D += A B from the fragments of 32 lanes, in the layout that include/mma.cuh states. Sums in f64, rounded once.
inline void mma_f16_lanes(Thread* lanes, unsigned) {
    const int k_all = static_cast<MmaF16*>(lanes[0].fragments)->k;
    float a[16][16] = {}, b[16][8] = {};
    for (int lane = 0; lane < 32; lane++) {
        const MmaF16& f = *static_cast<MmaF16*>(lanes[lane].fragments);
        const int g = lane / 4, t = lane % 4;
        for (int w = 0; w < k_all / 4; w++) {
            for (int half = 0; half < 2; half++) {
                a[g + 8 * (w & 1)][2 * t + half + 8 * (w >> 1)] = f16_to_f32((unsigned short)(f.a[w] >> 16 * half));
            }
        }
        for (int w = 0; w < k_all / 8; w++) {
            for (int half = 0; half < 2; half++) {
                b[2 * t + half + 8 * w][g] = f16_to_f32((unsigned short)(f.b[w] >> 16 * half));
            }
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        MmaF16& f = *static_cast<MmaF16*>(lanes[lane].fragments);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            double sum = f.d[i];
            for (int k = 0; k < k_all; k++) sum += double(a[g + 8 * (i / 2)][k]) * b[k][2 * t + i % 2];
            f.d[i] = float(sum);
        }
    }
}

inline void mma_f16(float* d, const unsigned* a, const unsigned* b, int k) {
    MmaF16 fragments = {d, a, b, k};
    meet("an f16 mma", 0xffffffffu, 0, k, &fragments, mma_f16_lanes);
}

struct MmaS8 {
    int* d;
    const unsigned *a, *b;
};

inline void mma_s8_lanes(Thread* lanes, unsigned) {
    int a[16][32], b[32][8];
    for (int lane = 0; lane < 32; lane++) {
        const MmaS8& f = *static_cast<MmaS8*>(lanes[lane].fragments);
        const int g = lane / 4, t = lane % 4;
        for (int byte = 0; byte < 4; byte++) {
            for (int w = 0; w < 4; w++) a[g + 8 * (w & 1)][4 * t + byte + 16 * (w >> 1)] = int8_t(f.a[w] >> 8 * byte);
            for (int w = 0; w < 2; w++) b[4 * t + byte + 16 * w][g] = int8_t(f.b[w] >> 8 * byte);
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        const MmaS8& f = *static_cast<MmaS8*>(lanes[lane].fragments);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            for (int k = 0; k < 32; k++) f.d[i] += a[g + 8 * (i / 2)][k] * b[k][2 * t + i % 2];
        }
    }
}

inline void mma_s8(int* d, const unsigned* a, const unsigned* b) {
    MmaS8 fragments = {d, a, b};
    meet("an s8 mma", 0xffffffffu, 0, 0, &fragments, mma_s8_lanes);
}

}  // namespace emulator

template <typename T>
inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return emulator::shuffle(emulator::Shuffle::Index, mask, v, lane, width);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    return emulator::shuffle(emulator::Shuffle::Up, mask, v, int(by), width);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    return emulator::shuffle(emulator::Shuffle::Down, mask, v, int(by), width);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32) {
    return emulator::shuffle(emulator::Shuffle::Xor, mask, v, with, width);
}
inline unsigned __ballot_sync(unsigned mask, int p) { return emulator::ballot(mask, p); }
inline int __any_sync(unsigned mask, int p) { return emulator::ballot(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return emulator::ballot(mask, p) == mask; }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulator::meet("__syncwarp", mask, 0, 0, nullptr, [](emulator::Thread*, unsigned) {});
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v) {
    return unsigned(emulator::meet("a reduction", mask, v, 0, nullptr, [](emulator::Thread* lanes, unsigned m) {
        emulator::fold_lanes(lanes, m, 0, [](uint64_t s, uint64_t in, int) { return uint64_t(unsigned(s + in)); });
    }));
}

#endif
