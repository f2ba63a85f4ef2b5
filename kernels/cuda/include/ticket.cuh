// Tickets: of some blocks, each of which has left its part of a result in memory, the last to arrive finds all of them.
#ifndef EDGELLM_TICKET_CUH
#define EDGELLM_TICKET_CUH

#include "dialect.cuh"

// Loads past L1, of what other blocks have stored. (PTX: ld)
__device__ __forceinline__ float4 load_past_l1_16(const float* at) {
#ifdef EDGELLM_EMULATED
    return *(const float4*)at;
#else
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at) : "memory");
    return v;
#endif
}

__device__ __forceinline__ float2 load_past_l1_8(const float* at) {
#ifdef EDGELLM_EMULATED
    return *(const float2*)at;
#else
    float2 v;
    asm volatile("ld.global.cg.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(at) : "memory");
    return v;
#endif
}

// Draws a ticket. What this block has stored is out before, and what the blocks with earlier tickets have stored can be seen
// behind: one thread calls it between two barriers of those that store and load. (PTX: atom)
__device__ __forceinline__ u32 draw_ticket(u32* counter) {
#ifdef EDGELLM_EMULATED
    return atomicAdd(counter, 1u);
#else
    u32 ticket;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(ticket) : "l"(counter) : "memory");
    return ticket;
#endif
}

#endif
