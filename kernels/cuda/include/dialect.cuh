// The dialect of every kernel here: no header of the CUDA toolkit, so that a source compiles wherever an NVRTC is found.
//
// NVRTC has dp4a, shuffles, atomics and the vector types built in and nothing else: integer names, f16 and loads with a
// cache hint are defined here. Each instruction that needs inline PTX sits in one function, with the section of the PTX
// manual it is from. With EDGELLM_EMULATED the same sources compile as C++ for the processor; then a function calls the
// emulator instead (kernels/tests/emulator/cuda_on_cpu.hpp).
#ifndef EDGELLM_DIALECT_CUH
#define EDGELLM_DIALECT_CUH

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8, "integer names must say their width");

#define WARP 32
#define FULL_WARP 0xffffffffu

// Plain constants, as FLT_MAX and INFINITY come from headers.
#define F32_MAX 3.402823466e+38f
#define F32_INFINITY (__int_as_float(0x7f800000))

// Dynamic shared memory of the block, 16-byte aligned: `DYNAMIC_SHARED(name);` declares `u8* name` or an array.
#ifdef EDGELLM_EMULATED
#define DYNAMIC_SHARED(name) u8* const name = emulator::dynamic_shared()
#else
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) u8 name[]
#endif

// Bounds the registers of a thread, before a kernel's name and in place of __launch_bounds__ (NVRTC 12.4 on).
#ifdef EDGELLM_EMULATED
#define REGISTERS(most)
#else
#define REGISTERS(most) __maxnreg__(most)
#endif

// The value of f16 bits; exact. (PTX: cvt)
__device__ __forceinline__ float f16_to_f32(u16 bits) {
#ifdef EDGELLM_EMULATED
    return emulator::f16_to_f32(bits);
#else
    float value;
    asm("{ .reg .f16 h; mov.b16 h, %1; cvt.f32.f16 %0, h; }" : "=f"(value) : "h"(bits));
    return value;
#endif
}

// The f16 nearest to a value, ties to even. (PTX: cvt)
__device__ __forceinline__ u16 f32_to_f16(float value) {
#ifdef EDGELLM_EMULATED
    return emulator::f32_to_f16(value);
#else
    u16 bits;
    asm("{ .reg .f16 h; cvt.rn.f16.f32 h, %1; mov.b16 %0, h; }" : "=h"(bits) : "f"(value));
    return bits;
#endif
}

// The value of bf16 bits; exact, as bf16 is the upper half of an f32.
__device__ __forceinline__ float bf16_to_f32(u16 bits) {
    return __uint_as_float((u32)bits << 16);
}

// Both halves of a word of two f16, the lower first.
__device__ __forceinline__ float2 f16x2_to_f32(u32 word) {
    return make_float2(f16_to_f32((u16)(word & 0xffffu)), f16_to_f32((u16)(word >> 16)));
}

// Two floats as a word of two f16, the first in the lower half.
__device__ __forceinline__ u32 f32_to_f16x2(float low, float high) {
    return (u32)f32_to_f16(low) | (u32)f32_to_f16(high) << 16;
}

// 16 bytes of weights through the read-only path, not kept in L1: weights are read once. The address is a multiple of
// 16. Only for data that no kernel of the chain writes. (PTX: ld.global.nc)
__device__ __forceinline__ uint4 load_weights_16(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<uint4>(at);
#else
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
    return v;
#endif
}

// As load_weights_16, for 8 bytes at a multiple of 8. (PTX: ld.global.nc)
__device__ __forceinline__ uint2 load_weights_8(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<uint2>(at);
#else
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(at));
    return v;
#endif
}

// As load_weights_16, for 4 bytes at a multiple of 4. (PTX: ld.global.nc)
__device__ __forceinline__ u32 load_weights_4(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<u32>(at);
#else
    u32 v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(at));
    return v;
#endif
}

// As load_weights_16, for 2 bytes at a multiple of 2. (PTX: ld.global.nc)
__device__ __forceinline__ u16 load_weights_2(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<u16>(at);
#else
    u16 v;
    asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(v) : "l"(at));
    return v;
#endif
}

// 16 bytes of data that an earlier kernel of the chain may have written: an ordinary load, for after the wait.
__device__ __forceinline__ uint4 load_16(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<uint4>(at);
#else
    return *(const uint4*)at;
#endif
}

// As load_16, for 8 bytes.
__device__ __forceinline__ uint2 load_8(const void* at) {
#ifdef EDGELLM_EMULATED
    return emulator::load<uint2>(at);
#else
    return *(const uint2*)at;
#endif
}

// Asks for the line that holds an address to come into L2. (PTX: prefetch)
__device__ __forceinline__ void prefetch_l2(const void* at) {
#ifdef EDGELLM_EMULATED
    (void)at;
#else
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#endif
}

// a . b + c over four int8, where `a` holds signed and `b` signed bytes. (CUDA: __dp4a, instruction IDP.4A)
__device__ __forceinline__ int dot4(u32 a, u32 b, int c) {
    return __dp4a((int)a, (int)b, c);
}

__host__ __device__ constexpr int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

#endif
