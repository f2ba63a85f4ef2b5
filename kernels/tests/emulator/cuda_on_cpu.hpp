// CUDA sources as C++: what NVRTC provides, on fibers of one processor thread. Include this before a kernel's `.cu`.
//
// What this shows: arithmetic and indexing, bit for bit where a kernel uses integers and fused multiply-adds; barriers
// that some threads miss; reads before a barrier, in one of two orders of threads; lanes missing from a mask; loads
// through the dialect outside of a buffer or off their alignment; shared memory read before it is written (it holds NaN)
// or written past its end; copies used before their wait; loads and stores before the wait for earlier kernels that may
// still write there.
//
// What it cannot show: races that need true concurrency, memory order between blocks, what ptxas makes of a source
// (registers, spills), limits of a device, and any speed.
#ifndef EDGELLM_EMULATOR_CUDA_ON_CPU_HPP
#define EDGELLM_EMULATOR_CUDA_ON_CPU_HPP

#define EDGELLM_EMULATED 1

// Before the keywords of CUDA become macros, which these headers do not expect.
#include <cmath>
#include <cstdio>
#include <utility>

#include "block.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static
#define __align__(n) __attribute__((aligned(n)))
// Blocks run one after the other, so shared memory is static, in a section whose ends the linker names. A template must
// not declare it: its section would be another.
#define __shared__ static __attribute__((section("edgellm_shared")))

typedef emulator::Index3 uint3;
#define threadIdx (emulator::machine.now->index)
#define blockIdx (emulator::machine.block_index)
#define blockDim (emulator::machine.block_dim)
#define gridDim (emulator::machine.grid_dim)
static constexpr int warpSize = 32;

#include "builtins.hpp"
#include "memory.hpp"
#include "warp_ops.hpp"

namespace emulator {

// The section of shared memory; absent where a kernel declares none.
extern "C" {
extern char __start_edgellm_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_edgellm_shared[] __attribute__((weak, visibility("hidden")));
}

constexpr unsigned char CANARY = 0xa5;
constexpr size_t BAND = 1024;

struct Launch {
    Index3 grid, block;
    unsigned dynamic_bytes;
    // 0: threads and blocks ascending; 1: both descending.
    int descending;
    Range ranges[MAX_RANGES];
    int n_ranges;
    // What kernels ahead of this one write, late.
    const Late* late;
    int n_late;
};

// Blocks at the start of a launch whose late buffers are hidden until they wait, and the last one. All run the same code,
// and hiding takes three passes over the buffers.
constexpr unsigned long long HIDDEN_BLOCKS = 4;

template <typename Call>
const char* launch(const Launch& what, Call call) {
    Machine& m = machine;
    m.failed = false;
    m.error[0] = 0;
    m.now = nullptr;
    m.grid_dim = what.grid;
    m.block_dim = what.block;
    const unsigned long long threads = 1ull * what.block.x * what.block.y * what.block.z;
    if (threads == 0 || threads > MAX_THREADS || what.grid.x == 0 || what.grid.y == 0 || what.grid.z == 0) {
        note("a grid of %u,%u,%u blocks of %llu threads cannot be launched", what.grid.x, what.grid.y, what.grid.z,
             threads);
        return m.error;
    }
    m.n_threads = int(threads);
    m.n_ranges = what.n_ranges;
    for (int i = 0; i < what.n_ranges; i++) m.ranges[i] = what.ranges[i];
    const size_t dynamic = (size_t(what.dynamic_bytes) + 15) / 16 * 16;
    char* arena = static_cast<char*>(aligned_alloc(256, (dynamic + 2 * BAND + 255) / 256 * 256));
    m.dynamic = reinterpret_cast<unsigned char*>(arena) + BAND;
    m.dynamic_bytes = what.dynamic_bytes;
    m.late = what.late;
    m.n_late = what.n_late;
    m.hidden = false;
    m.held = static_cast<unsigned char*>(malloc(late_bytes(m) + 1));
    m.body = [](void* data) { (*static_cast<Call*>(data))(); };
    m.body_data = &call;
    const unsigned long long blocks = 1ull * what.grid.x * what.grid.y * what.grid.z;
    for (unsigned long long i = 0; i < blocks && !m.failed; i++) {
        const unsigned long long b = what.descending ? blocks - 1 - i : i;
        m.block_index = {unsigned(b % what.grid.x), unsigned(b / what.grid.x % what.grid.y),
                         unsigned(b / what.grid.x / what.grid.y)};
        if (__start_edgellm_shared != nullptr) {
            memset(__start_edgellm_shared, POISON, size_t(__stop_edgellm_shared - __start_edgellm_shared));
        }
        memset(arena, CANARY, BAND);
        memset(m.dynamic, POISON, what.dynamic_bytes);
        memset(m.dynamic + what.dynamic_bytes, CANARY, dynamic - what.dynamic_bytes + BAND);
        if (i < HIDDEN_BLOCKS || i == blocks - 1) hide_late();
        run_block(what.descending != 0);
        show_late();
        const size_t behind = dynamic - what.dynamic_bytes + BAND;
        for (size_t at = 0; at < BAND && !m.failed; at++) {
            if (static_cast<unsigned char>(arena[at]) != CANARY) note("a write before dynamic shared memory");
        }
        for (size_t at = 0; at < behind && !m.failed; at++) {
            if (m.dynamic[what.dynamic_bytes + at] != CANARY) {
                note("a write %zu bytes past the %u bytes of dynamic shared memory", at, what.dynamic_bytes);
            }
        }
    }
    free(m.held);
    free(arena);
    return m.failed ? m.error : nullptr;
}

template <typename... Args, size_t... I>
const char* call(const Launch& what, void (*kernel)(Args...), void** args, std::index_sequence<I...>) {
    return launch(what, [=] { kernel(*static_cast<Args*>(args[I])...); });
}

template <typename... Args>
const char* call(const Launch& what, void (*kernel)(Args...), void** args, int n_args) {
    if (n_args != int(sizeof...(Args))) {
        machine.failed = false;
        note("the kernel takes %d arguments and was given %d", int(sizeof...(Args)), n_args);
        return machine.error;
    }
    return call(what, kernel, args, std::index_sequence_for<Args...>());
}

}  // namespace emulator

// Exports `kernel` under one name for the caller: arguments as pointers, as the driver's launch takes them. Returns null
// or the text of an error.
#define EDGELLM_EMULATED_ENTRY(kernel)                                                                       \
    extern "C" __attribute__((visibility("default"))) const char* edgellm_emulated_launch(                   \
        const emulator::Launch* what, void** args, int n_args) {                                             \
        return emulator::call(*what, &kernel, args, n_args);                                                 \
    }

#endif
