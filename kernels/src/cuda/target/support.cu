// Kernels of the harness itself: time stamps, a gate that holds a stream, poison, a late producer, a plain read.
//
// The dialect is that of every other source here: no header, inline PTX in small named functions.
typedef unsigned int u32;
typedef unsigned long long u64;

// Nanoseconds on a clock that all multiprocessors share. (PTX: special registers)
__device__ __forceinline__ u64 global_nanos() {
    u64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory");
    return t;
}

// Cycles of this multiprocessor. (PTX: special registers)
__device__ __forceinline__ u64 sm_cycles() {
    u64 t;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(t)::"memory");
    return t;
}

// The multiprocessor that this block runs on. (PTX: special registers)
__device__ __forceinline__ u32 multiprocessor() {
    u32 id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
}

// A word of host memory, read anew each time. (PTX: ld.volatile)
__device__ __forceinline__ u32 read_host(const u32* at) {
    u32 v;
    asm volatile("ld.volatile.global.u32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
    return v;
}

// 16 bytes past L1, so that a second pass reads L2 or memory. (PTX: ld.global.cg)
__device__ __forceinline__ uint4 read_16(const uint4* at) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
    return v;
}

// Lets the next kernel of the stream start. (PTX: griddepcontrol)
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Waits for the kernels ahead. (PTX: griddepcontrol)
__device__ __forceinline__ void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// One pair of time and cycles for each multiprocessor that got a block. Launched with several blocks of one warp a
// multiprocessor; the last block there wins, and a pair is one store.
extern "C" __global__ void stamp(u64* pairs /* [slots][2] */, u32 slots) {
    u32 id = multiprocessor();
    if (threadIdx.x == 0 && id < slots) {
        u64 nanos = global_nanos();
        u64 cycles = sm_cycles();
        asm volatile("st.global.v2.u64 [%0], {%1, %2};" ::"l"(pairs + 2 * id), "l"(nanos), "l"(cycles) : "memory");
    }
}

// Holds the stream until the host has queued all that comes behind, or until the time is up.
extern "C" __global__ void hold(const u32* flag, u32 ticket, u64 timeout_ns, u32* timed_out) {
    u64 start = global_nanos();
    while (read_host(flag) != ticket) {
        if (global_nanos() - start > timeout_ns) {
            *timed_out = ticket;
            return;
        }
    }
}

// Whether a slot is poisoned before a sample; the same on the host (`is_poisoned`).
__device__ __forceinline__ bool poisons(u64 seed, u32 slot) {
    u64 z = seed + (u64)(slot + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return ((z ^ (z >> 31)) & 1) != 0;
}

// Fills every other slot, as `seed` draws them, with 0xff: a NaN in every float that is not written again.
extern "C" __global__ void poison(u32* outputs, u64 stride_words, u32 slots, u64 seed) {
    for (u32 slot = blockIdx.y; slot < slots; slot += gridDim.y) {
        if (!poisons(seed, slot)) continue;
        u32* at = outputs + slot * stride_words;
        for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < stride_words; i += (u64)gridDim.x * blockDim.x) {
            at[i] = 0xffffffffu;
        }
    }
}

// One place that a producer writes: a copy, or `fill` in every byte where `from` is 0. Places start at multiples of 16.
struct Late {
    u64 to, from, bytes, fill;
};

// A producer that lets its successor start at once and writes late. Whoever reads before it waits sees what was there
// before, and what is stored before the wait is written over. All blocks are resident together, or the successor would
// only start when the last of them does.
extern "C" __global__ void __launch_bounds__(256) write_late(const Late* all, u32 count, u64 delay_ns) {
    let_next_start();
    u64 start = global_nanos();
    while (global_nanos() - start < delay_ns) {
    }
    u64 first = blockIdx.x * (u64)blockDim.x + threadIdx.x, step = (u64)gridDim.x * blockDim.x;
    for (u32 place = 0; place < count; ++place) {
        Late late = all[place];
        u32 word = (u32)late.fill * 0x01010101u;
        const uint4* from = (const uint4*)late.from;
        uint4* to = (uint4*)late.to;
        u64 whole = late.bytes / 16;
        for (u64 i = first; i < whole; i += step) to[i] = from ? from[i] : make_uint4(word, word, word, word);
        for (u64 i = whole * 16 + first; i < late.bytes; i += step) {
            ((unsigned char*)to)[i] = from ? ((const unsigned char*)from)[i] : (unsigned char)word;
        }
    }
}

// Nothing: the price of a launch. With the programmatic attribute it does what a kernel of a chain must.
extern "C" __global__ void nothing(u32* unused) {
    let_next_start();
    wait_for_earlier();
}

// Reads `count` vectors `passes` times, eight loads in flight a thread.
extern "C" __global__ void __launch_bounds__(512) read_all(const uint4* data, u64 count, u32 passes, u32* out) {
    u32 sum = 0;
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u32 pass = 0; pass < passes; ++pass) {
        u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
        for (; i + 7 * step < count; i += 8 * step) {
            uint4 v[8];
#pragma unroll
            for (int j = 0; j < 8; ++j) v[j] = read_16(data + i + j * step);
#pragma unroll
            for (int j = 0; j < 8; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
        }
        for (; i < count; i += step) {
            uint4 v = read_16(data + i);
            sum += v.x ^ v.y ^ v.z ^ v.w;
        }
    }
    // Kept, so that no load can be left out.
    if (sum == 0x9e3779b9u) *out = sum;
}
