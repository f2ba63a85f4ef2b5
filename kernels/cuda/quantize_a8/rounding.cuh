// One activation to int8: half away from zero, never -128, on every backend alike.
#ifndef EDGELLM_ROUNDING_CUH
#define EDGELLM_ROUNDING_CUH

#include "dialect.cuh"

// `inverse` is 127 / max|x| of the group, or 0 where all are zero.
__device__ __forceinline__ int a8_code(float v, float inverse) {
    const float r = roundf(__fmul_rn(v, inverse));
    // Where the maximum is so small that its inverse is infinite, products are too.
    return r >= 127.0f ? 127 : r <= -127.0f ? -127 : (int)r;
}

#endif
