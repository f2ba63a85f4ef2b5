// The built-in types and functions of CUDA that kernels here use: vectors, bit casts, integer and float arithmetic.
#ifndef EDGELLM_EMULATOR_BUILTINS_HPP
#define EDGELLM_EMULATOR_BUILTINS_HPP

#include <cmath>
#include <cstdint>
#include <cstring>

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulator {
template <typename To, typename From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

inline float f16_to_f32(unsigned short h) {
    const unsigned sign = unsigned(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 31) return bits<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) {
        // A subnormal is a multiple of 2^-24, which f32 holds exactly.
        const float magnitude = float(mantissa) * 5.9604644775390625e-8f;
        return bits<float>(bits<unsigned>(magnitude) | sign);
    }
    return bits<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

inline unsigned short f32_to_f16(float value) {
    const unsigned u = bits<unsigned>(value), sign = u >> 16 & 0x8000;
    const unsigned magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) return (unsigned short)(sign | 0x7fff);
    if (magnitude >= 0x477ff000) return (unsigned short)(sign | 0x7c00);  // 65520 rounds to infinity
    if (magnitude < 0x38800000) {
        // Below 2^-14: the f32 adder rounds to a multiple of 2^-24 when 0.5 is added.
        const float shifted = bits<float>(magnitude) + 0.5f;
        return (unsigned short)(sign | (bits<unsigned>(shifted) - 0x3f000000u));
    }
    const unsigned odd = magnitude >> 13 & 1;
    return (unsigned short)(sign | ((magnitude - 0x38000000u + 0xfff + odd) >> 13));
}
}  // namespace emulator

inline float __int_as_float(int v) { return emulator::bits<float>(v); }
inline float __uint_as_float(unsigned v) { return emulator::bits<float>(v); }
inline int __float_as_int(float v) { return emulator::bits<int>(v); }
inline unsigned __float_as_uint(float v) { return emulator::bits<unsigned>(v); }
inline double __longlong_as_double(long long v) { return emulator::bits<double>(v); }
inline long long __double_as_longlong(double v) { return emulator::bits<long long>(v); }

inline int __dp4a(int a, int b, int c) {
    unsigned sum = unsigned(c);
    for (int i = 0; i < 4; i++) {
        sum += unsigned(int(int8_t(unsigned(a) >> 8 * i)) * int(int8_t(unsigned(b) >> 8 * i)));
    }
    return int(sum);
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
    return c;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t both = uint64_t(b) << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned pick = selector >> 4 * i & 15;
        unsigned byte = unsigned(both >> 8 * (pick & 7)) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        out |= byte << 8 * i;
    }
    return out;
}
inline unsigned __vadd4(unsigned a, unsigned b) {
    return ((a & 0x7f7f7f7fu) + (b & 0x7f7f7f7fu)) ^ ((a ^ b) & 0x80808080u);
}
inline unsigned __vsub4(unsigned a, unsigned b) {
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= (((a >> 8 * i) - (b >> 8 * i)) & 255) << 8 * i;
    return out;
}
inline unsigned __vsubss4(unsigned a, unsigned b) {
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        int d = int(int8_t(a >> 8 * i)) - int(int8_t(b >> 8 * i));
        d = d > 127 ? 127 : d < -128 ? -128 : d;
        out |= (unsigned(d) & 255) << 8 * i;
    }
    return out;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __brev(unsigned v) {
    unsigned out = 0;
    for (int i = 0; i < 32; i++) out |= (v >> i & 1) << (31 - i);
    return out;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }

// Written out as C++ has no common `min` of plain types; one overload a type, as in CUDA.
#define EDGELLM_MIN_MAX(T)                                                \
    inline T min(T a, T b) { return b < a ? b : a; }                      \
    inline T max(T a, T b) { return a < b ? b : a; }
EDGELLM_MIN_MAX(int)
EDGELLM_MIN_MAX(unsigned)
EDGELLM_MIN_MAX(long long)
EDGELLM_MIN_MAX(unsigned long long)
#undef EDGELLM_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline int __float2int_rn(float a) { return int(nearbyintf(a)); }
inline int __float2int_rz(float a) { return int(a); }
inline int __float2int_rd(float a) { return int(floorf(a)); }
inline float __int2float_rn(int a) { return float(a); }
inline float __uint2float_rn(unsigned a) { return float(a); }

#endif
