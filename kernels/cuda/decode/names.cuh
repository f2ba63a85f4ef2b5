// What FORMAT is, asked before headers that give formats numbers are included.
#ifndef EDGELLM_DECODE_NAMES_CUH
#define EDGELLM_DECODE_NAMES_CUH

#if !defined(FORMAT)
#error "FORMAT must be set by the build, to Q4_0, Q4_1, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K, F16 or BF16"
#endif
#define JOINED_NAMES(a, b) a##b
#define JOINED(a, b) JOINED_NAMES(a, b)

#define IS_K_QUANT_Q4_K 1
#define IS_K_QUANT_Q5_K 1
#define IS_K_QUANT_Q6_K 1
#if JOINED(IS_K_QUANT_, FORMAT)
#define K_QUANT 1
#else
#define K_QUANT 0
#endif

// Formats of floats, whose activations are floats too.
#define IS_FLOATS_F16 1
#define IS_FLOATS_BF16 1
#if JOINED(IS_FLOATS_, FORMAT)
#define FLOATS 1
#else
#define FLOATS 0
#endif

#endif
