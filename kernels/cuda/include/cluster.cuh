// Clusters of blocks that run at the same time and read each other's shared memory (sm_90 on). A kernel has them by
// `CLUSTER_OF(x, y, z)` before its name, and its grid is whole clusters.
#ifndef EDGELLM_CLUSTER_CUH
#define EDGELLM_CLUSTER_CUH

#include "dialect.cuh"

#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#error "clusters need compute capability 9.0: set min_cc = 90 in the space"
#endif

#ifdef EDGELLM_EMULATED
#define CLUSTER_OF(x, y, z)
#else
#define CLUSTER_OF(x, y, z) __attribute__((cluster_dims(x, y, z)))
#endif

// Says that this thread is done with what came before, for all blocks of the cluster to know. (PTX: barrier.cluster.arrive)
__device__ __forceinline__ void cluster_arrive() {
#ifndef EDGELLM_EMULATED
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

// Waits until every thread of the cluster has arrived; their stores to shared memory can be seen. (PTX: barrier.cluster.wait)
__device__ __forceinline__ void cluster_wait() {
#ifndef EDGELLM_EMULATED
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// The float that stands in block `rank` of the cluster where `at` stands in this one's shared memory. (PTX: mapa, ld.shared)
__device__ __forceinline__ float load_of_block(const float* at, int rank) {
#ifdef EDGELLM_EMULATED
    (void)rank;
    return *at;
#else
    u32 there;
    float value;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((u32)__cvta_generic_to_shared(at)), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(there) : "memory");
    return value;
#endif
}

#endif
