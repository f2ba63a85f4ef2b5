// A driver that shows devices and does nothing: what the program says of a machine is tested with it. The environment says
// what it shows. Memory is the host's, and launches compute nothing.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static long shown(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDriverGetVersion(int* version) { *version = (int)shown("FAKE_DRIVER_VERSION", 13000); return 0; }
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
