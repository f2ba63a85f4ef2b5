// Clusters of blocks that run at the same time and write to each other's shared memory (sm_90 on). A kernel has them by
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

// Waits until every thread of the cluster has arrived; their stores to any block's shared memory can be seen.
// (PTX: barrier.cluster.wait)
__device__ __forceinline__ void cluster_wait() {
#ifndef EDGELLM_EMULATED
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

#ifndef EDGELLM_EMULATED
// The address in block `rank` of the cluster that stands for `at` in this one's shared memory. (PTX: mapa)
__device__ __forceinline__ u32 in_block(const float* at, int rank) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"((u32)__cvta_generic_to_shared(at)), "r"(rank));
    return there;
}
#endif

// Stores 16 bytes in block `rank` of the cluster, where `at` stands in this one's shared memory. That block has started and does
// not end before: barriers of the cluster say so. (PTX: mapa, st.shared::cluster)
__device__ __forceinline__ void store_in_block_16(float* at, float4 v, int rank) {
#ifdef EDGELLM_EMULATED
    (void)rank;
    *(float4*)at = v;
#else
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(in_block(at, rank)), "f"(v.x), "f"(v.y), "f"(v.z),
                 "f"(v.w)
                 : "memory");
#endif
}

// The same of 8 bytes.
__device__ __forceinline__ void store_in_block_8(float* at, float2 v, int rank) {
#ifdef EDGELLM_EMULATED
    (void)rank;
    *(float2*)at = v;
#else
    asm volatile("st.shared::cluster.v2.f32 [%0], {%1,%2};" ::"r"(in_block(at, rank)), "f"(v.x), "f"(v.y) : "memory");
#endif
}

#endif
