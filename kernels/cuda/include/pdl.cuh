// Programmatic dependent launch: a kernel may start while the one before it still runs (sm_90 on; nothing below).
//
// Rules (the gate runs kernels behind one that writes late): before `pdl_wait` a kernel writes nothing, and reads constants
// of the model and what stands since the token before: its position, the number of its keys, of keys and values every row
// but the newest, and where tokens are drawn the parameters of the choice, the uniform numbers and the tokens up to its
// position. The last kernel of a token writes the position and the number of keys of the next, and the token that was
// drawn; the host sends parameters and numbers ahead on the same stream; the graph of a token starts when all of that has
// ended. Every kernel of a chain waits, so that order is transitive. `pdl_launch` comes early: it only lets the next
// kernel's blocks be scheduled, its own wait still covers all our stores.
//
// The wait stands in a basic block of its own, behind a condition that always holds and that the compiler cannot know:
// ptxas is free to move loads through the read-only path behind a wait in theirs.
#ifndef EDGELLM_PDL_CUH
#define EDGELLM_PDL_CUH

#include "dialect.cuh"

// Waits until the kernels before this one have finished and their stores can be seen. (PTX: griddepcontrol.wait)
__device__ __forceinline__ void pdl_wait() {
#if defined(EDGELLM_EMULATED)
    emulator::wait_for_earlier();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel's blocks start where there is room. (PTX: griddepcontrol.launch_dependents)
__device__ __forceinline__ void pdl_launch() {
#if !defined(EDGELLM_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#endif
