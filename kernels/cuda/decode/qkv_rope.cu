// qkv_rope / fused: norm, a8/32, the joined rows of Q, K and V, bias, RoPE, and the append to the cache in one launch.
//
//   W  planes of [(HEADS + 2 KV_HEADS) DIM, K]     x, norm  f32 [K]     q  f32 [HEADS, DIM]
//   k, v  [KV_HEADS, MAX_LEN, DIM], of which position state[1] is written: f16, or int8 with scales f32 [KV_HEADS, MAX_LEN]
//
// A tile holds both rows of TILE_ROWS / 2 pairs that RoPE turns, all of one head, whatever the pairing: a thread for each
// pair ends it. The position stands since before this token: it, cosine and sine are asked for before the wait. Needs TILE_ROWS
// to divide DIM. Format: FORMAT.
//
// KV_BITS (a constant of the space)  16, or 8: a head of keys or values is rounded (decode/append_int8.cuh) by the last of
// its blocks, or, where CLUSTER is not 0, by all of them, which are of one cluster and have a tile each. A warp must hold the
// pairs of a tile. Heads of queries and of the others are of different clusters.
//
// Tunables (set with -D; values and constraints in variants/spaces/qkv_rope.toml)
//   WARPS, LPR, KW, RPL, UNROLL, PREFETCH  see decode/frame.cuh
//   CLUSTER   see KV_BITS; 0 where the space sets it
//   BLOCKS_PER_SM  blocks that stride over the tiles, for each multiprocessor; 0: a block for each tile
#if !defined(WARPS) || !defined(LPR) || !defined(KW) || !defined(RPL) || !defined(UNROLL) || !defined(PREFETCH) || \
    !defined(BLOCKS_PER_SM) || !defined(KV_BITS) || !defined(CLUSTER)
#error "qkv_rope/fused: every tunable must be set by the build"
#endif
#include "decode/append_int8.cuh"
#include "decode/norm.cuh"

constexpr int PAIRS = TILE_ROWS / 2;
static_assert(TILE_ROWS % 2 == 0, "a tile holds whole pairs");
// Threads that append: a whole warp rounds a head.
constexpr int ENDING = KV_BITS == 8 ? WARP : PAIRS;
static_assert(KV_BITS == 16 || (KV_BITS == 8 && PAIRS <= WARP), "one warp ends a tile of an int8 head");
static_assert(CLUSTER == 0 || (KV_BITS == 8 && BLOCKS_PER_SM == 0), "blocks of a cluster have a tile each");

struct Turn {
    float cos, sin, bias0, bias1;
};

// Position, angles and bias of the block's first tile are on their way with the weights of the norm, before the wait. Behind it
// a thread would wait for the position before it asks for activations.
template <class LoadTurn>
struct TurnedStage : NormStage {
    const LoadTurn load_turn;
    const u32* const state;
    u32 pos;
    Turn turn;

    __device__ __forceinline__ TurnedStage(const NormStage& norm, LoadTurn load_turn, const u32* state)
        : NormStage(norm), load_turn(load_turn), state(state), pos(0), turn{1.0f, 0.0f, 0.0f, 0.0f} {}

    __device__ __forceinline__ void early() {
        NormStage::early();
        if (threadIdx.x < ENDING) pos = *(const volatile u32*)(state + 1);
        if (threadIdx.x < PAIRS) turn = load_turn(blockIdx.x, pos);
    }
};

extern "C" __global__ void HEAD_CLUSTER FRAME_BOUNDS
qkv_rope_fused(const u8* W,         // weights, see above
               const float* bias,   // [N] or null
               const float* norm,   // [K]
               const float* x,      // [K]
               const float2* rope,  // [MAX_LEN, DIM / 2]: cosine and sine
               const u32* state,    // token id, position, number of keys
               float* q,            // [HEADS, DIM]
               u8* k, u8* v,        // see above
               float* k_scale, float* v_scale,  // [KV_HEADS, MAX_LEN], or null
               int HEADS, int KV_HEADS, int DIM, int K, int MAX_LEN, int PAIRING, int KV, float eps,
               u8* scratch) {  // decode/append_int8.cuh, or null
    DYNAMIC_SHARED(slab);
    __shared__ float parts[WARPS];
    __shared__ float part[PART_FLOATS];
    (void)KV;
    pdl_launch();
#if HEAD_MEETS_IN_CLUSTER
    if ((int)blockIdx.x * TILE_ROWS >= HEADS * DIM) cluster_arrive();
#endif
    const int N = (HEADS + 2 * KV_HEADS) * DIM;
    const int half = DIM / 2, per_head = half / PAIRS;
    // Element `which` (0 or 1) of pair `i` of a head: neighbours, or elements half a head apart.
    const int across = PAIRING ? 1 : half, along = PAIRING ? 2 : 1;
    const auto row_of = [=](int tile, int i) {
        const int pair = tile % per_head * PAIRS + i % PAIRS;
        return tile / per_head * DIM + pair * along + i / PAIRS * across;
    };
    const auto load_turn = [=](int tile, u32 pos) {
        Turn turn = {1.0f, 0.0f, 0.0f, 0.0f};
        const int head = tile / per_head;
        if (head < HEADS + KV_HEADS) {
            const uint2 cs = load_weights_8(rope + (u64)pos * half + tile % per_head * PAIRS + threadIdx.x);
            turn.cos = __uint_as_float(cs.x);
            turn.sin = __uint_as_float(cs.y);
        }
        if (bias) {
            turn.bias0 = bias[row_of(tile, threadIdx.x)];
            turn.bias1 = bias[row_of(tile, threadIdx.x + PAIRS)];
        }
        return turn;
    };
    TurnedStage<decltype(load_turn)> stage(NormStage(slab, parts, norm, x, K, eps), load_turn, state);
    const auto prepare = [&](int tile) {
        if (tile == (int)blockIdx.x || threadIdx.x >= PAIRS) return stage.turn;
        return load_turn(tile, stage.pos);
    };
    const auto finish = [&](int tile, int count, const float (&sums)[RPL], const Turn& turn) {
        const float* const met = put_sums(sums, part, count);
        const int head = tile / per_head, of = head - HEADS;
        const u64 slot = (u64)(of % KV_HEADS) * MAX_LEN + stage.pos;
        const Int8Head int8(scratch, of, 2 * KV_HEADS, DIM);
        int at = 0;
        float2 pair = make_float2(0.0f, 0.0f);
        if (threadIdx.x < PAIRS) {
            const float a = fmaf(row_sum(met, threadIdx.x), stage.scale, turn.bias0);
            const float b = fmaf(row_sum(met, threadIdx.x + PAIRS), stage.scale, turn.bias1);
            pair = make_float2(a * turn.cos - b * turn.sin, a * turn.sin + b * turn.cos);
            const int row = row_of(tile, threadIdx.x);
            at = row - head * DIM;
            if (head < HEADS) {
                q[row] = pair.x;
                q[row + across] = pair.y;
            } else if (KV_BITS == 16) {
                u16* const cache = (u16*)(of < KV_HEADS ? k : v) + slot * DIM;
                cache[at] = f32_to_f16(pair.x);
                cache[at + across] = f32_to_f16(pair.y);
            } else if (!HEAD_MEETS_IN_CLUSTER) {
                int8.elements[at] = pair.x;
                int8.elements[at + across] = pair.y;
            }
        }
        if (KV_BITS == 16 || head < HEADS) return;
        u8* const codes = (of < KV_HEADS ? k : v) + slot * DIM;
        float* const scale = (of < KV_HEADS ? k_scale : v_scale) + slot;
#if HEAD_MEETS_IN_CLUSTER
        append_part(pair, PAIRS, per_head, codes + at, across, scale);
#else
        if (threadIdx.x < WARP) int8.append(per_head, codes, scale);
#endif
    };
    each_tile(W, N, K, N / TILE_ROWS, row_of, stage, prepare, finish);
}
