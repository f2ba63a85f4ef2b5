// A run-time compiler that takes every source and compiles none: its PTX has an entry for every word of the source, and the
// scripted driver (tests/cli/driver.c) loads anything.

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct program {
    char* ptx;
    size_t length;
};

static void put(struct program* p, const char* text, size_t count) {
    memcpy(p->ptx + p->length, text, count);
    p->length += count;
}

static int is_of_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
const char* nvrtcGetErrorString(int code) { (void)code; return "an error"; }

int nvrtcCreateProgram(struct program** out, const char* source, const char* name, int headers, const char* const* texts,
                       const char* const* names) {
    (void)name; (void)headers; (void)texts; (void)names;
    struct program* p = calloc(1, sizeof *p);
    // A word has a character at least, and one behind it.
    p->ptx = malloc(8 * strlen(source) + 16);
    while (*source) {
        const char* end = source;
        while (is_of_word(*end)) ++end;
        if (end > source) {
            put(p, ".entry ", 7);
            put(p, source, (size_t)(end - source));
            put(p, "\n", 1);
        }
        source = *end ? end + 1 : end;
    }
    put(p, "", 1);
    *out = p;
    return 0;
}

int nvrtcCompileProgram(struct program* p, int count, const char* const* options) { (void)p; (void)count; (void)options; return 0; }
int nvrtcDestroyProgram(struct program** p) { free((*p)->ptx); free(*p); *p = 0; return 0; }
int nvrtcGetProgramLogSize(struct program* p, size_t* size) { (void)p; *size = 1; return 0; }
int nvrtcGetProgramLog(struct program* p, char* log) { (void)p; *log = 0; return 0; }
int nvrtcGetPTXSize(struct program* p, size_t* size) { *size = p->length; return 0; }
int nvrtcGetPTX(struct program* p, char* ptx) { memcpy(ptx, p->ptx, p->length); return 0; }
int nvrtcGetCUBINSize(struct program* p, size_t* size) { (void)p; *size = 0; return 0; }
int nvrtcGetCUBIN(struct program* p, char* cubin) { (void)p; (void)cubin; return 0; }
