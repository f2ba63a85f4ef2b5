// The names of weight formats: the space sets FORMAT to one of them.
#ifndef EDGELLM_FORMAT_CUH
#define EDGELLM_FORMAT_CUH

#define Q4_0 1
#define Q4_1 2
#define Q5_0 3
#define Q8_0 4
#define G128 5
#define F16 6
#define BF16 7
#define F32 8

#if !defined(FORMAT) || FORMAT < 1 || FORMAT > 8
#error "FORMAT must be set by the build, to Q4_0, Q4_1, Q5_0, Q8_0, G128, F16, BF16 or F32"
#endif

#endif
