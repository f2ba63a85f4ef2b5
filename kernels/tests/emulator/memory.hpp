// Memory as kernels see it: checked loads, asynchronous copies, atomics, fences.
#ifndef EDGELLM_EMULATOR_MEMORY_HPP
#define EDGELLM_EMULATOR_MEMORY_HPP

#include "block.hpp"

namespace emulator {

inline unsigned char* dynamic_shared() {
    return machine.dynamic;
}

inline void check_read(const void* at, size_t bytes) {
    const char* from = static_cast<const char*>(at);
    if (reinterpret_cast<uintptr_t>(from) % bytes != 0) fail("a load of %zu bytes is not aligned", bytes);
    for (int i = 0; i < machine.n_ranges; i++) {
        if (from >= machine.ranges[i].begin && from + bytes <= machine.ranges[i].end) {
            for (int l = 0; machine.hidden && l < machine.n_late; l++) {
                const Range& late = machine.late[l].range;
                if (from >= late.end || from + bytes <= late.begin) continue;
                fail("a load of %zu bytes at %lld of a buffer, which earlier kernels write, before the wait for them", bytes,
                     (long long)(from - machine.ranges[i].begin));
            }
            return;
        }
    }
    for (int i = 0; i < machine.n_ranges; i++) {
        const Range& r = machine.ranges[i];
        if (from + bytes > r.begin - 4096 && from < r.end + 4096) {
            fail("a load of %zu bytes at %lld of a buffer of %lld", bytes, (long long)(from - r.begin),
                 (long long)(r.end - r.begin));
        }
    }
    fail("a load of %zu bytes outside of every buffer", bytes);
}

// A load of the dialect: in one of the launch's buffers, aligned to its size.
template <typename T>
T load(const void* at) {
    // Staged activations lie in shared memory, which has canaries of its own.
    const auto* byte = static_cast<const unsigned char*>(at);
    if (!(byte >= machine.dynamic && byte < machine.dynamic + machine.dynamic_bytes)) check_read(at, sizeof(T));
    T value;
    memcpy(&value, at, sizeof value);
    return value;
}

inline void copy_async(void* to, const void* from, unsigned bytes) {
    Thread& t = *machine.now;
    check_read(from, bytes);
    if (reinterpret_cast<uintptr_t>(to) % bytes != 0) fail("an asynchronous copy to an address that is not aligned");
    if (t.copies == nullptr) t.copies = static_cast<AsyncCopy*>(malloc(sizeof(AsyncCopy) * MAX_COPIES));
    if (t.n_copies == MAX_COPIES) fail("more than %d asynchronous copies under way", MAX_COPIES);
    t.copies[t.n_copies++] = {to, from, bytes, t.group};
}

inline void copy_async_commit() {
    machine.now->group++;
}

// Carries out every copy but those of the last `pending` groups: as late as a device may.
inline void copy_async_wait(unsigned pending) {
    Thread& t = *machine.now;
    int kept = 0;
    for (int i = 0; i < t.n_copies; i++) {
        const AsyncCopy& c = t.copies[i];
        if (c.group + pending < t.group) {
            memcpy(c.to, c.from, c.bytes);
        } else {
            t.copies[kept++] = c;
        }
    }
    t.n_copies = kept;
}

// A barrier that counts bytes (mbarrier): bit 0 is the parity of the phase under way, bit 1 says that the one thread has
// arrived, and the upper half counts the bytes that are still to come.
typedef unsigned long long Transaction;

inline void transaction_init(Transaction* b) {
    *b = 0;
}

inline void transaction_settle(Transaction* b) {
    if ((*b & 2) != 0 && (*b >> 32) == 0) *b = (*b & 1) ^ 1;
}

inline void transaction_expect(Transaction* b, unsigned bytes) {
    if ((*b & 2) != 0) fail("a barrier of bytes is arrived at twice in one phase");
    *b = (*b + (Transaction(bytes) << 32)) | 2;
    transaction_settle(b);
}

// Lets the other threads run until the phase of this parity has ended.
inline void transaction_wait(const Transaction* b, unsigned parity) {
    for (int polls = 0; (*b & 1) == (parity & 1); polls++) {
        if (polls == 100000) fail("a barrier of bytes never completes: %llu bytes are missing", *b >> 32);
        machine.now->state = State::Polling;
        yield();
    }
}

// The copy is done when it is asked for, and others see it by the barrier.
inline void transaction_copy(void* to, const void* from, unsigned bytes, Transaction* b) {
    if (bytes % 16 != 0 || reinterpret_cast<uintptr_t>(to) % 16 != 0) fail("a bulk copy is not of whole 16 bytes");
    for (unsigned at = 0; at < bytes; at += 16) check_read(static_cast<const char*>(from) + at, 16);
    memcpy(to, from, bytes);
    *b -= Transaction(bytes) << 32;
    transaction_settle(b);
}

}  // namespace emulator

inline size_t __cvta_generic_to_shared(const void* at) { return reinterpret_cast<size_t>(at); }

template <typename T>
inline T __ldg(const T* at) { return *at; }
template <typename T>
inline T __ldcg(const T* at) { return *at; }
template <typename T>
inline T __ldcs(const T* at) { return *at; }
template <typename T>
inline void __stcg(T* at, T value) { *at = value; }

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
inline long long clock64() { return 0; }

// Fibers switch only at barriers, so a plain read-modify-write is atomic.
template <typename T, typename V>
inline T atomicAdd(T* at, V value) { T old = *at; *at = T(old + T(value)); return old; }
template <typename T, typename V>
inline T atomicSub(T* at, V value) { T old = *at; *at = T(old - T(value)); return old; }
template <typename T, typename V>
inline T atomicMax(T* at, V value) { T old = *at; if (old < T(value)) *at = T(value); return old; }
template <typename T, typename V>
inline T atomicMin(T* at, V value) { T old = *at; if (T(value) < old) *at = T(value); return old; }
template <typename T, typename V>
inline T atomicExch(T* at, V value) { T old = *at; *at = T(value); return old; }
template <typename T, typename V>
inline T atomicOr(T* at, V value) { T old = *at; *at = T(old | T(value)); return old; }
template <typename T, typename V>
inline T atomicAnd(T* at, V value) { T old = *at; *at = T(old & T(value)); return old; }
template <typename T, typename V, typename W>
inline T atomicCAS(T* at, V compare, W value) { T old = *at; if (old == T(compare)) *at = T(value); return old; }
inline unsigned atomicInc(unsigned* at, unsigned limit) {
    unsigned old = *at;
    *at = old >= limit ? 0 : old + 1;
    return old;
}
inline unsigned atomicDec(unsigned* at, unsigned limit) {
    unsigned old = *at;
    *at = old == 0 || old > limit ? limit : old - 1;
    return old;
}

#endif
