// Copies from global to shared memory that run beside arithmetic (sm_80 on).
#ifndef EDGELLM_ASYNC_COPY_CUH
#define EDGELLM_ASYNC_COPY_CUH

#include "dialect.cuh"

#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "cp.async needs compute capability 8.0: set min_cc = 80 in the space"
#endif

// Starts a copy of 16 bytes past L1. Both addresses are multiples of 16. (PTX: cp.async)
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
#ifdef EDGELLM_EMULATED
    emulator::copy_async(shared, global, 16);
#else
    u32 to = (u32)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#endif
}

// Closes the group of copies that this thread has started since the last one. (PTX: cp.async.commit_group)
__device__ __forceinline__ void copy_async_commit() {
#ifdef EDGELLM_EMULATED
    emulator::copy_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of this thread's latest groups are under way. (PTX: cp.async.wait_group)
template <int PENDING>
__device__ __forceinline__ void copy_async_wait() {
#ifdef EDGELLM_EMULATED
    emulator::copy_async_wait(PENDING);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

#endif
