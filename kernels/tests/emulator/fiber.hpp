// Fibers: stacks that one thread of the processor switches between by hand. A CUDA thread of the emulator is a fiber.
//
// On x86-64 a switch saves the six registers that a call must keep and swaps stack pointers; elsewhere it is
// swapcontext, which costs two system calls.
#ifndef EDGELLM_EMULATOR_FIBER_HPP
#define EDGELLM_EMULATOR_FIBER_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

// Enough for every kernel with its arrays unoptimised; only pages that are touched take memory.
constexpr size_t STACK_BYTES = 128 * 1024;

#if defined(__x86_64__)
struct Context {
    void* stack_pointer;
};

// Saves the caller's registers and stack in `from` and continues `to`.
extern "C" void edgellm_emulator_switch(Context* from, Context* to);
__asm__(R"(
    .text
    .local edgellm_emulator_switch
    .type edgellm_emulator_switch, @function
edgellm_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size edgellm_emulator_switch, . - edgellm_emulator_switch
)");

inline void switch_to(Context& from, Context& to) {
    edgellm_emulator_switch(&from, &to);
}

inline void prepare(Context& fiber, char* stack, void (*body)()) {
    auto* top = reinterpret_cast<uintptr_t*>(stack + STACK_BYTES);
    // The address `body` returns to is never used, and it keeps the stack as a call would leave it.
    *--top = 0;
    *--top = reinterpret_cast<uintptr_t>(body);
    for (int i = 0; i < 6; i++) *--top = 0;
    fiber.stack_pointer = top;
}
#else
struct Context {
    ucontext_t state;
};

inline void switch_to(Context& from, Context& to) {
    swapcontext(&from.state, &to.state);
}

inline void prepare(Context& fiber, char* stack, void (*body)()) {
    getcontext(&fiber.state);
    fiber.state.uc_stack.ss_sp = stack;
    fiber.state.uc_stack.ss_size = STACK_BYTES;
    fiber.state.uc_link = nullptr;
    makecontext(&fiber.state, body, 0);
}
#endif

// One mapping with the stacks of `count` fibers, made on first use.
inline char* stacks(size_t count) {
    static char* base = nullptr;
    static size_t held = 0;
    if (held < count) {
        if (base != nullptr) munmap(base, held * STACK_BYTES);
        void* at = mmap(nullptr, count * STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) abort();
        base = static_cast<char*>(at);
        held = count;
    }
    return base;
}

}  // namespace emulator

#endif
