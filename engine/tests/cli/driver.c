// A driver that shows devices and computes next to nothing: what the program says of a machine, and what it launches when,
// is tested with it. The environment says what it shows. Memory is the host's, and a launch is over when it returns. The
// kernels that choose a token choose one by its position alone; those that append keys and values end the process where
// these would lie outside of their cache; all others do nothing.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long shown(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

int cuInit(unsigned flags) { (void)flags; return 0; }
#ifdef STUB
// The library of a toolkit that is only linked against.
int cuDriverGetVersion(int* version) { (void)version; return 34; }
#else
int cuDriverGetVersion(int* version) { *version = (int)shown("FAKE_DRIVER_VERSION", 13000); return 0; }
#endif
int cuDeviceGetCount(int* count) { *count = (int)shown("FAKE_DRIVER_DEVICES", 1); return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }

int cuDeviceGetAttribute(int* value, int which, int device) {
    (void)device;
    switch (which) {
    case 16: *value = 132; break;             // multiprocessors
    case 38: *value = 50 << 20; break;        // bytes of L2
    case 39: *value = 2048; break;            // threads of a multiprocessor
    case 75: *value = (int)shown("FAKE_DRIVER_CC", 90) / 10; break;
    case 76: *value = (int)shown("FAKE_DRIVER_CC", 90) % 10; break;
    case 97: *value = 227 << 10; break;       // bytes of shared memory of a block
    default: *value = 0;
    }
    return 0;
}

int cuDeviceGetName(char* name, int length, int device) {
    (void)device;
    strncpy(name, "Scripted GPU", (size_t)length);
    return 0;
}

int cuDeviceGetUuid_v2(char* uuid, int device) { (void)device; memset(uuid, 7, 16); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { (void)device; *bytes = (size_t)8 << 30; return 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) { (void)device; *context = (void*)1; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return 0; }
int cuCtxSetCurrent(void* context) { (void)context; return 0; }

int cuMemGetInfo_v2(size_t* available, size_t* total) {
    *total = (size_t)8 << 30;
    *available = (size_t)shown("FAKE_DRIVER_FREE_MIB", 8000) << 20;
    return 0;
}

int cuMemAlloc_v2(uint64_t* address, size_t bytes) { *address = (uint64_t)malloc(bytes ? bytes : 1); return 0; }
int cuMemFree_v2(uint64_t address) { free((void*)address); return 0; }
int cuMemHostAlloc(void** address, size_t bytes, unsigned flags) { (void)flags; *address = calloc(1, bytes); return 0; }
int cuMemFreeHost(void* address) { free(address); return 0; }
int cuMemHostGetDevicePointer_v2(uint64_t* out, void* host, unsigned flags) { (void)flags; *out = (uint64_t)host; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t n, void* s) { (void)s; memcpy((void*)to, from, n); return 0; }
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t n, void* s) { (void)s; memcpy(to, (void*)from, n); return 0; }
int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t n, void* s) { (void)s; memset((void*)to, byte, n); return 0; }
int cuStreamCreate(void** stream, unsigned flags) { (void)flags; *stream = (void*)1; return 0; }
int cuStreamDestroy_v2(void* stream) { (void)stream; return 0; }
int cuStreamSynchronize(void* stream) { (void)stream; return 0; }
int cuGetErrorName(int code, const char** text) { (void)code; *text = "CUDA_ERROR"; return 0; }
int cuGetErrorString(int code, const char** text) { (void)code; *text = "an error"; return 0; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void* s) { (void)s; memcpy((void*)to, (void*)from, n); return 0; }
int cuStreamQuery(void* stream) { (void)stream; return 0; }
int cuEventCreate(void** event, unsigned flags) { (void)flags; *event = (void*)1; return 0; }
int cuEventDestroy_v2(void* event) { (void)event; return 0; }
int cuEventRecord(void* event, void* stream) { (void)event; (void)stream; return 0; }
int cuEventRecordWithFlags(void* event, void* stream, unsigned flags) { (void)event; (void)stream; (void)flags; return 0; }
int cuEventElapsedTime_v2(float* millis, void* from, void* to) { (void)from; (void)to; *millis = 0.001f; return 0; }

// A function is its name, and modules hold nothing.
int cuModuleLoadDataEx(void** module, const void* image, unsigned n, void* options, void* values) {
    (void)image; (void)n; (void)options; (void)values;
    *module = (void*)1;
    return 0;
}
int cuModuleUnload(void* module) { (void)module; return 0; }
int cuModuleGetFunction(char** function, void* module, const char* name) {
    (void)module;
    *function = strdup(name);
    return 0;
}

static int begins(const char* name, const char* with) { return strncmp(name, with, strlen(with)) == 0; }

int cuFuncGetAttribute(int* value, int which, const char* function) {
    switch (which) {
    case 0: *value = 1024; break;  // threads of a block
    case 12: *value = strstr(function, "cluster") ? (int)shown("FAKE_DRIVER_CLUSTER", 0) : 0; break;  // its height
    default: *value = 0;
    }
    return 0;
}
int cuFuncSetAttribute(const char* function, int which, int value) { (void)function; (void)which; (void)value; return 0; }

// The launch asks as it launches: without an attribute that names a size of clusters again.
struct config { unsigned grid[3], block[3], smem; void* stream; void* attributes; unsigned count; };
int cuOccupancyMaxActiveClusters(int* clusters, const char* function, const struct config* config) {
    (void)function;
    if (config->count != 0) return 1;
    *clusters = (int)shown("FAKE_DRIVER_CLUSTERS_THAT_FIT", 8);
    return 0;
}

#define MOST_ARGS 17
struct launch {
    const char* name;
    uint64_t args[MOST_ARGS];
};
struct graph {
    struct launch* launches;
    size_t count;
};
static struct graph* captured;

// As many arguments as are looked at: how many there are is not told.
static int looked_at(const char* name) {
    if (begins(name, "norm_logits_")) return 9;
    if (begins(name, "sample_")) return 12;
    if (begins(name, "qkv_rope_")) return 16;
    return begins(name, "rope_append_") ? 17 : 0;
}

static void append(const char* name, uint32_t pos, uint32_t tokens, uint32_t room) {
    if (pos + tokens <= room) return;
    fprintf(stderr, "scripted driver: %s appends behind position %u of a cache of %u\n", name, pos, room);
    abort();
}

static void put_next(uint32_t pos, uint32_t vocab, uint32_t* next, uint32_t* ring, uint32_t* history, uint32_t len) {
    const uint32_t token = (7 * pos + 3) % vocab;
    next[0] = token, next[1] = pos + 1, next[2] = pos + 2, next[3] = 0;
    if (history && pos + 1 < len) history[pos + 1] = token;
    if (ring) ring[pos % 1024] = token + 1;
}

static void run(const struct launch* l) {
    const uint64_t* a = l->args;
    if (begins(l->name, "qkv_rope_")) append(l->name, ((uint32_t*)a[5])[1], 1, (uint32_t)a[15]);
    if (begins(l->name, "rope_append_")) append(l->name, *(uint32_t*)a[5], (uint32_t)a[15], (uint32_t)a[16]);
    if (begins(l->name, "norm_logits_")) put_next(*(uint32_t*)a[6], (uint32_t)a[8], (uint32_t*)a[4], (uint32_t*)a[7], 0, 0);
    if (begins(l->name, "sample_")) {
        put_next(*(uint32_t*)a[4], (uint32_t)a[10], (uint32_t*)a[5], (uint32_t*)a[9], (uint32_t*)a[6], (uint32_t)a[11]);
    }
}

static int launch(const char* name, void** args) {
    struct launch l = {name, {0}};
    for (int i = 0; i < looked_at(name); ++i) l.args[i] = *(uint64_t*)args[i];
    if (!captured) {
        const char* refused = getenv("FAKE_DRIVER_REFUSES");
        if (refused && strcmp(name, refused) == 0) return 701;
        run(&l);
        return 0;
    }
    captured->launches = realloc(captured->launches, (captured->count + 1) * sizeof l);
    captured->launches[captured->count++] = l;
    return 0;
}

int cuLaunchKernel(const char* function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                   unsigned smem, void* stream, void** args, void** extra) {
    (void)x; (void)y; (void)z; (void)bx; (void)by; (void)bz; (void)smem; (void)stream; (void)extra;
    return launch(function, args);
}
int cuLaunchKernelEx(const struct config* config, const char* function, void** args, void** extra) {
    (void)config; (void)extra;
    return launch(function, args);
}

int cuStreamBeginCapture_v2(void* stream, int mode) {
    (void)stream; (void)mode;
    captured = calloc(1, sizeof *captured);
    return 0;
}
int cuStreamEndCapture(void* stream, struct graph** graph) {
    (void)stream;
    *graph = captured;
    captured = 0;
    return 0;
}
int cuGraphGetNodes(struct graph* graph, void* nodes, size_t* count) { (void)nodes; *count = graph->count; return 0; }
int cuGraphInstantiateWithFlags(struct graph** exec, struct graph* graph, uint64_t flags) { (void)flags; *exec = graph; return 0; }
int cuGraphUpload(struct graph* exec, void* stream) { (void)exec; (void)stream; return 0; }
int cuGraphLaunch(struct graph* exec, void* stream) {
    (void)stream;
    for (size_t i = 0; i < exec->count; ++i) run(&exec->launches[i]);
    return 0;
}
// What was instantiated is the graph itself, and lives on.
int cuGraphDestroy(struct graph* graph) { (void)graph; return 0; }
int cuGraphExecDestroy(struct graph* exec) { free(exec->launches); free(exec); return 0; }
