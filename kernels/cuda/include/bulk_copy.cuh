// Bulk copies from global to shared memory that report to a barrier in shared memory (sm_90 on).
//
// One thread names a piece of memory, the copy engine moves it, and whoever waits on the barrier sees it arrive: bytes in
// flight need no registers. Addresses and sizes are multiples of 16.
#ifndef EDGELLM_BULK_COPY_CUH
#define EDGELLM_BULK_COPY_CUH

#include "dialect.cuh"

#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#error "bulk copies need compute capability 9.0: set min_cc = 90 in the space"
#endif

// Makes a barrier that completes a phase when one thread has arrived and all bytes it expects are there.
// (PTX: mbarrier.init)
__device__ __forceinline__ void barrier_init(u64* barrier) {
#ifdef EDGELLM_EMULATED
    emulator::transaction_init(barrier);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"((u32)__cvta_generic_to_shared(barrier)) : "memory");
#endif
}

// Lets the copy engine see the barriers that this thread has made. (PTX: fence.mbarrier_init)
__device__ __forceinline__ void barrier_init_fence() {
#ifndef EDGELLM_EMULATED
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// Arrives, and says how many bytes the phase waits for. (PTX: mbarrier.arrive.expect_tx)
__device__ __forceinline__ void barrier_expect(u64* barrier, u32 bytes) {
#ifdef EDGELLM_EMULATED
    emulator::transaction_expect(barrier, bytes);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"((u32)__cvta_generic_to_shared(barrier)),
                 "r"(bytes)
                 : "memory");
#endif
}

// Waits for the end of the phase of this parity: 0 for the first, then 1, 0, ... (PTX: mbarrier.try_wait)
__device__ __forceinline__ void barrier_wait(u64* barrier, u32 parity) {
#ifdef EDGELLM_EMULATED
    emulator::transaction_wait(barrier, parity);
#else
    u32 at = (u32)__cvta_generic_to_shared(barrier), done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (done == 0);
#endif
}

// Starts a copy of weights that counts against the barrier's bytes. (PTX: cp.async.bulk)
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, u32 bytes, u64* barrier) {
#ifdef EDGELLM_EMULATED
    emulator::transaction_copy(shared, global, bytes, barrier);
#else
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     (u32)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(bytes), "r"((u32)__cvta_generic_to_shared(barrier))
                 : "memory");
#endif
}

#endif
