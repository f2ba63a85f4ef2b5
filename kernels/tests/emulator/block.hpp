// One block of CUDA threads as fibers: barriers, the operations of a warp, and the order in which threads take turns.
//
// A thread runs until it meets a barrier or a warp operation, or ends. Ascending order starts with thread 0 and
// descending with the last: a value that is read before a barrier made it safe is stale in one of the two.
//
// A launch is one of a programmatic chain: until a block waits for the kernels ahead, it sees poison wherever they write,
// and may store nowhere there. When it waits, the buffers are as the kernels ahead left them.
#ifndef EDGELLM_EMULATOR_BLOCK_HPP
#define EDGELLM_EMULATOR_BLOCK_HPP

#include <cstdarg>
#include <cstdio>

#include "fiber.hpp"

namespace emulator {

struct Index3 {
    unsigned x, y, z;
};

enum class State : uint8_t { Ready, Polling, AtBarrier, InWarp, AtWait, Ended };

// Copies that a thread has started and that have not arrived.
struct AsyncCopy {
    void* to;
    const void* from;
    unsigned bytes;
    unsigned group;
};
constexpr int MAX_COPIES = 512;

constexpr int MAX_THREADS = 1024;
constexpr int MAX_RANGES = 16;

struct Thread {
    Context context;
    State state;
    Index3 index;
    int linear;
    // The warp operation that this thread waits in: its name, mask, what it brings and what it gets.
    const char* op;
    unsigned mask;
    uint64_t in, out;
    long long argument;
    void* fragments;
    // cp.async.
    AsyncCopy* copies;
    int n_copies;
    unsigned group;
};

// A buffer that kernels may read with the loads of the dialect.
struct Range {
    const char* begin;
    const char* end;
};

// What kernels ahead write, and what is there until then.
struct Late {
    Range range;
    unsigned char hidden;
};

struct Machine {
    Thread threads[MAX_THREADS];
    Thread* now;
    Context scheduler;
    int n_threads;
    Index3 block_index, block_dim, grid_dim;
    void (*body)(void*);
    void* body_data;
    bool failed;
    char error[512];
    int barrier_or, barrier_count;
    int barrier_result_or, barrier_result_and, barrier_result_count;
    unsigned char* dynamic;
    size_t dynamic_bytes;
    Range ranges[MAX_RANGES];
    int n_ranges;
    // What kernels ahead write; what it holds, one range behind the other, while they are hidden.
    const Late* late;
    int n_late;
    unsigned char* held;
    bool hidden;
};

// Zero-initialised, one per shared object: each compiled kernel has a machine of its own.
static Machine machine;

// Ends the launch with an error: the block's threads are left where they are.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    Machine& m = machine;
    if (!m.failed) {
        int at = 0;
        if (m.now != nullptr) {
            at = snprintf(m.error, sizeof m.error, "block %u,%u thread %d: ", m.block_index.x, m.block_index.y,
                          m.now->linear);
        }
        va_list args;
        va_start(args, format);
        vsnprintf(m.error + at, sizeof m.error - at, format, args);
        va_end(args);
        m.failed = true;
    }
    switch_to(m.now->context, m.scheduler);
    abort();
}

// The same from the scheduler itself.
__attribute__((format(printf, 1, 2))) inline void note(const char* format, ...) {
    Machine& m = machine;
    if (m.failed) return;
    va_list args;
    va_start(args, format);
    vsnprintf(m.error, sizeof m.error, format, args);
    va_end(args);
    m.failed = true;
}

inline void yield() {
    Machine& m = machine;
    switch_to(m.now->context, m.scheduler);
}

inline void fiber_body() {
    Machine& m = machine;
    m.body(m.body_data);
    m.now->state = State::Ended;
    yield();
    abort();
}

// __syncthreads, with the votes of its variants: waits for every thread of the block.
inline void barrier(int predicate) {
    Machine& m = machine;
    m.barrier_or |= predicate != 0;
    m.barrier_count += predicate != 0;
    m.now->state = State::AtBarrier;
    yield();
}

// What a warp operation does once every lane of its mask is there: reads `in` of some lanes, sets `out` of all.
typedef void (*Combine)(Thread* lanes, unsigned mask);

// Meets the other lanes of the mask. The last to come combines, so that no lane sees half of an operation.
inline uint64_t meet(const char* op, unsigned mask, uint64_t in, long long argument, void* fragments, Combine combine) {
    Machine& m = machine;
    Thread& self = *m.now;
    const int lane = self.linear % 32;
    if (!(mask >> lane & 1)) fail("%s: the lane is not in its own mask %08x", op, mask);
    Thread* lanes = m.threads + (self.linear - lane);
    const int in_block = m.n_threads - (self.linear - lane);
    self.op = op;
    self.mask = mask;
    self.in = in;
    self.argument = argument;
    self.fragments = fragments;
    for (int other = 0; other < 32; other++) {
        if (!(mask >> other & 1) || other == lane) continue;
        if (other >= in_block) fail("%s: mask %08x names lane %d, and the block ends before it", op, mask, other);
        Thread& t = lanes[other];
        if (t.state == State::Ended) fail("%s: mask %08x names lane %d, which has returned", op, mask, other);
        if (t.state == State::InWarp && ((t.op != op && strcmp(t.op, op) != 0) || t.mask != mask)) {
            if (t.mask >> lane & 1) fail("%s: lane %d waits in %s with mask %08x", op, other, t.op, t.mask);
        }
        if (t.state != State::InWarp || t.mask != mask) {
            self.state = State::InWarp;
            yield();
            return self.out;
        }
    }
    combine(lanes, mask);
    for (int other = 0; other < 32; other++) {
        if (mask >> other & 1) lanes[other].state = State::Ready;
    }
    return self.out;
}

constexpr unsigned char POISON = 0xff;  // Four of them are a NaN, two of them an f16 NaN.

inline size_t bytes_of(const Late& late) {
    return size_t(late.range.end - late.range.begin);
}

inline size_t late_bytes(const Machine& m) {
    size_t bytes = 0;
    for (int i = 0; i < m.n_late; i++) bytes += bytes_of(m.late[i]);
    return bytes;
}

// Takes away what kernels ahead write, at the start of a block.
inline void hide_late() {
    Machine& m = machine;
    unsigned char* held = m.held;
    for (int i = 0; i < m.n_late; i++) {
        const size_t bytes = bytes_of(m.late[i]);
        char* at = const_cast<char*>(m.late[i].range.begin);
        memcpy(held, at, bytes);
        memset(at, m.late[i].hidden, bytes);
        held += bytes;
    }
    m.hidden = true;
}

// Gives it back when the block waits, or has ended without. Whatever the block stored until then is lost, as the kernels
// ahead may still write there.
inline void show_late() {
    Machine& m = machine;
    if (!m.hidden) return;
    m.hidden = false;
    const unsigned char* held = m.held;
    for (int i = 0; i < m.n_late; i++) {
        const size_t bytes = bytes_of(m.late[i]);
        auto* at = reinterpret_cast<unsigned char*>(const_cast<char*>(m.late[i].range.begin));
        for (size_t byte = 0; byte < bytes && !m.failed; byte++) {
            if (at[byte] != m.late[i].hidden) {
                note("block %u,%u stores at %zu of %zu bytes that earlier kernels write, before it waits for them",
                     m.block_index.x, m.block_index.y, byte, bytes);
            }
        }
        memcpy(at, held, bytes);
        held += bytes;
    }
}

// griddepcontrol.wait: every other thread goes as far as it can first, so that all that comes before the wait is seen.
inline void wait_for_earlier() {
    Machine& m = machine;
    if (!m.hidden) return;
    m.now->state = State::AtWait;
    yield();
}

inline const char* state_name(const Thread& t) {
    switch (t.state) {
        case State::AtWait: return "waits for earlier kernels";
        case State::AtBarrier: return "waits at __syncthreads";
        case State::InWarp: return t.op;
        case State::Ended: return "has returned";
        default: return "runs";
    }
}

// Runs the threads of one block until all have ended, or the launch has failed.
inline void run_block(bool descending) {
    Machine& m = machine;
    char* stack = stacks(m.n_threads);
    for (int i = 0; i < m.n_threads; i++) {
        Thread& t = m.threads[i];
        t.state = State::Ready;
        t.linear = i;
        t.index = {i % m.block_dim.x, i / m.block_dim.x % m.block_dim.y, i / (m.block_dim.x * m.block_dim.y)};
        t.n_copies = 0;
        t.group = 0;
        prepare(t.context, stack + size_t(i) * STACK_BYTES, fiber_body);
    }
    m.barrier_or = m.barrier_count = 0;
    for (;;) {
        bool ran = false, progressed = false;
        int ended = 0, at_barrier = 0;
        for (int step = 0; step < m.n_threads; step++) {
            Thread& t = m.threads[descending ? m.n_threads - 1 - step : step];
            if (t.state == State::Ready || t.state == State::Polling) {
                ran = true;
                t.state = State::Ready;
                m.now = &t;
                switch_to(m.scheduler, t.context);
                m.now = nullptr;
                if (m.failed) return;
                progressed |= t.state != State::Polling;
            }
        }
        if (!progressed && m.hidden) {
            bool waits = false;
            for (int i = 0; i < m.n_threads; i++) waits |= m.threads[i].state == State::AtWait;
            if (waits) {
                show_late();
                if (m.failed) return;
                for (int i = 0; i < m.n_threads; i++) {
                    if (m.threads[i].state == State::AtWait) m.threads[i].state = State::Ready;
                }
                continue;
            }
        }
        for (int i = 0; i < m.n_threads; i++) {
            ended += m.threads[i].state == State::Ended;
            at_barrier += m.threads[i].state == State::AtBarrier;
        }
        if (ended == m.n_threads) return;
        if (at_barrier == m.n_threads) {
            m.barrier_result_or = m.barrier_or;
            m.barrier_result_and = m.barrier_count == m.n_threads;
            m.barrier_result_count = m.barrier_count;
            m.barrier_or = m.barrier_count = 0;
            for (int i = 0; i < m.n_threads; i++) m.threads[i].state = State::Ready;
        } else if (!ran) {
            const Thread *first = nullptr, *other = nullptr;
            for (int i = 0; i < m.n_threads; i++) {
                const Thread& t = m.threads[i];
                if (t.state == State::Ended) {
                    if (other == nullptr) other = &t;
                } else if (first == nullptr) {
                    first = &t;
                } else if (other == nullptr && t.state != first->state) {
                    other = &t;
                }
            }
            note("block %u,%u deadlocked: thread %d: %s; thread %d: %s", m.block_index.x, m.block_index.y,
                 first->linear, state_name(*first), other != nullptr ? other->linear : first->linear,
                 other != nullptr ? state_name(*other) : "the same");
            return;
        }
    }
}

}  // namespace emulator

#endif
