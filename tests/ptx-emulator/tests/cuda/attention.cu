// Attention as engines that come as CUDA C sources do it. attention.sm80.ptx and attention.sm90.ptx are what NVRTC 13.5 makes of it for
// compute_80 and compute_90.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
#define INFINITY __int_as_float(0x7f800000)

constexpr int D = 64;

static __device__ __forceinline__ unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

static __device__ __forceinline__ void copy16(void* to, const void* from, bool inside) {
    int bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes));
}

static __device__ __forceinline__ void load4(unsigned (&r)[4], const void* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)));
}

static __device__ __forceinline__ void load2_transposed(unsigned (&r)[2], const void* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(p)));
}

static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ unsigned pack(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<unsigned*>(&pair);
}

// Prefill, causal, with a sliding window: 64 queries of one head per block, 16 per warp; 32 keys at a time in two stages. Rows of shared memory
// are 8 elements longer than a head. q, o: [tokens, heads, D]; k, v: [tokens, kv_heads, D].
constexpr int QUERIES = 64, KEYS = 32, LINE = D + 8;
extern "C" __global__ void __launch_bounds__(128) flash(const __nv_bfloat16* __restrict__ q, const __nv_bfloat16* __restrict__ k,
    const __nv_bfloat16* __restrict__ v, __nv_bfloat16* __restrict__ o, int tokens, int heads, int kv_heads, int window, float scale) {
    __shared__ __align__(16) __nv_bfloat16 queries[QUERIES][LINE], keys[2][KEYS][LINE], values[2][KEYS][LINE];
    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
    int head = blockIdx.y, kv_head = head / (heads / kv_heads), first = blockIdx.x * QUERIES;
    for (int piece = thread; piece < QUERIES * D / 8; piece += 128) {
        int row = piece / (D / 8), column = piece % (D / 8) * 8, token = first + row;
        copy16(&queries[row][column], q + ((long long)min(token, tokens - 1) * heads + head) * D + column, token < tokens);
    }
    int begin = max(0, first - window + 1) / KEYS * KEYS, end = min(tokens, first + QUERIES);
    auto fetch = [&](int start, int stage) {
        for (int piece = thread; piece < KEYS * D / 8; piece += 128) {
            int row = piece / (D / 8), column = piece % (D / 8) * 8, token = start + row;
            long long at = ((long long)min(token, tokens - 1) * kv_heads + kv_head) * D + column;
            copy16(&keys[stage][row][column], k + at, token < tokens);
            copy16(&values[stage][row][column], v + at, token < tokens);
        }
        asm volatile("cp.async.commit_group;");
    };
    fetch(begin, 0);
    float best[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, out[D / 8][4] = {};
    unsigned a[D / 16][4];
    for (int start = begin, stage = 0; start < end; start += KEYS, stage ^= 1) {
        fetch(start + KEYS, stage ^ 1);
        asm volatile("cp.async.wait_group 1;");
        __syncthreads();
        if (start == begin)
            for (int depth = 0; depth < D / 16; depth++) load4(a[depth], &queries[warp * 16 + lane % 16][depth * 16 + lane / 16 * 8]);
        float s[KEYS / 8][4] = {};
        for (int depth = 0; depth < D / 16; depth++)
            for (int eight = 0; eight < KEYS / 8; eight += 2) {
                unsigned b[4];
                load4(b, &keys[stage][eight * 8 + lane / 16 * 8 + lane % 8][depth * 16 + lane / 8 % 2 * 8]);
                multiply(s[eight], a[depth], b[0], b[1]);
                multiply(s[eight + 1], a[depth], b[2], b[3]);
            }
        for (int half = 0; half < 2; half++) {
            int row = first + warp * 16 + g + 8 * half;
            float largest = best[half];
            for (int eight = 0; eight < KEYS / 8; eight++)
                for (int odd = 0; odd < 2; odd++) {
                    int key = start + eight * 8 + 2 * t + odd;
                    float& x = s[eight][2 * half + odd];
                    x = key <= row && key > row - window ? x * scale : -INFINITY;
                    largest = fmaxf(largest, x);
                }
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
            float factor = largest == -INFINITY ? 1.0f : exp2f(best[half] - largest);
            best[half] = largest;
            sum[half] *= factor;
            for (int eight = 0; eight < KEYS / 8; eight++)
                for (int odd = 0; odd < 2; odd++) {
                    float& x = s[eight][2 * half + odd];
                    x = x == -INFINITY ? 0.0f : exp2f(x - largest);
                    sum[half] += x;
                }
            for (int tile = 0; tile < D / 8; tile++) out[tile][2 * half] *= factor, out[tile][2 * half + 1] *= factor;
        }
        for (int depth = 0; depth < KEYS / 16; depth++) {
            unsigned p[4] = {pack(s[2 * depth][0], s[2 * depth][1]), pack(s[2 * depth][2], s[2 * depth][3]),
                             pack(s[2 * depth + 1][0], s[2 * depth + 1][1]), pack(s[2 * depth + 1][2], s[2 * depth + 1][3])};
            for (int tile = 0; tile < D / 8; tile++) {
                unsigned b[2];
                load2_transposed(b, &values[stage][depth * 16 + lane % 16][tile * 8]);
                multiply(out[tile], p, b[0], b[1]);
            }
        }
        __syncthreads();
    }
    asm volatile("cp.async.wait_all;");
    for (int half = 0; half < 2; half++) {
        int token = first + warp * 16 + g + 8 * half;
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        if (token < tokens)
            for (int tile = 0; tile < D / 8; tile++)
                *reinterpret_cast<__nv_bfloat162*>(o + ((long long)token * heads + head) * D + tile * 8 + 2 * t) =
                    __floats2bfloat162_rn(out[tile][2 * half] / sum[half], out[tile][2 * half + 1] / sum[half]);
    }
}

// Decode over a paged cache of half precision: a block per query head and sequence; 8 lanes share a position, 16 bytes each.
// cache: [blocks, keys and values, kv_heads, PAGE, D]; lengths and block tables as vLLM has them.
constexpr int PAGE = 16;
extern "C" __global__ void __launch_bounds__(128) paged(const half* __restrict__ q, const half* __restrict__ cache, half* __restrict__ o,
    const int* __restrict__ tables, const int* __restrict__ lengths, int table_stride, int heads, int kv_heads, float scale) {
    __shared__ float bests[4], sums[4], parts[4][D];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = lane % 8 * 8;
    int head = blockIdx.x, sequence = blockIdx.y, kv_head = head / (heads / kv_heads), length = lengths[sequence];
    const int* table = tables + sequence * table_stride;
    union Eight { uint4 bits; half2 pairs[4]; };
    Eight query;
    query.bits = *reinterpret_cast<const uint4*>(q + ((long long)sequence * heads + head) * D + own);
    float best = -INFINITY, sum = 0, out[8] = {};
    for (int base = warp * 4; base < length; base += 16) {
        int position = base + lane / 8;
        bool seen = position < length;
        Eight key = {}, value = {};
        if (seen) {
            const half* place = cache + (((long long)table[position / PAGE] * 2 * kv_heads + kv_head) * PAGE + position % PAGE) * D + own;
            key.bits = __ldg(reinterpret_cast<const uint4*>(place));
            value.bits = __ldg(reinterpret_cast<const uint4*>(place + (long long)kv_heads * PAGE * D));
        }
        float score = 0;
        for (int pair = 0; pair < 4; pair++) {
            float2 x = __half22float2(query.pairs[pair]), y = __half22float2(key.pairs[pair]);
            score += x.x * y.x + x.y * y.y;
        }
        for (int offset = 4; offset > 0; offset /= 2) score += __shfl_down_sync(0xffffffff, score, offset, 8);
        score = __shfl_sync(0xffffffff, score, 0, 8);
        score = seen ? score * scale : -INFINITY;
        float largest = fmaxf(best, score);
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 8));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 16));
        float factor = __expf(best - largest), weight = __expf(score - largest);
        sum = sum * factor + weight;
        for (int pair = 0; pair < 4; pair++) {
            float2 y = __half22float2(value.pairs[pair]);
            out[2 * pair] = out[2 * pair] * factor + weight * y.x;
            out[2 * pair + 1] = out[2 * pair + 1] * factor + weight * y.y;
        }
        best = largest;
    }
    for (int offset = 8; offset < 32; offset *= 2) {
        sum += __shfl_xor_sync(0xffffffff, sum, offset);
        for (int at = 0; at < 8; at++) out[at] += __shfl_xor_sync(0xffffffff, out[at], offset);
    }
    if (lane < 8) {
        for (int at = 0; at < 8; at++) parts[warp][own + at] = out[at];
        if (lane == 0) bests[warp] = best, sums[warp] = sum;
    }
    __syncthreads();
    if (threadIdx.x < D) {
        float largest = fmaxf(fmaxf(bests[0], bests[1]), fmaxf(bests[2], bests[3])), total = 0, result = 0;
        for (int part = 0; part < 4; part++) {
            float factor = __expf(bests[part] - largest);
            total += factor * sums[part];
            result += factor * parts[part][threadIdx.x];
        }
        o[((long long)sequence * heads + head) * D + threadIdx.x] = __float2half(result / total);
    }
}

// Scores through the matrix API of CUDA C: one warp, 16 queries, keys 16 at a time, softmax in shared memory. q: [16, D]; k, v: [keys, D].
extern "C" __global__ void whole_rows(const half* q, const half* k, const half* v, float* o, int keys, float scale) {
    using namespace nvcuda;
    extern __shared__ float scores[];
    half* weights = reinterpret_cast<half*>(scores + 16 * keys);
    int lane = threadIdx.x;
    for (int key = 0; key < keys; key += 16) {
        wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
        wmma::fill_fragment(sum, 0.0f);
        for (int depth = 0; depth < D; depth += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
            wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> b;
            wmma::load_matrix_sync(a, q + depth, D);
            wmma::load_matrix_sync(b, k + (long long)key * D + depth, D);
            wmma::mma_sync(sum, a, b, sum);
        }
        for (int at = 0; at < sum.num_elements; at++) sum.x[at] *= scale;
        wmma::store_matrix_sync(scores + key, sum, keys, wmma::mem_row_major);
    }
    __syncwarp();
    for (int row = 0; row < 16; row++) {
        float largest = -INFINITY, sum = 0;
        for (int key = lane; key < keys; key += 32) largest = fmaxf(largest, scores[row * keys + key]);
        for (int offset = 16; offset > 0; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, offset));
        for (int key = lane; key < keys; key += 32) sum += exp2f(scores[row * keys + key] - largest);
        for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
        for (int key = lane; key < keys; key += 32) weights[row * keys + key] = __float2half(exp2f(scores[row * keys + key] - largest) / sum);
    }
    __syncwarp();
    for (int column = 0; column < D; column += 16) {
        wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
        wmma::fill_fragment(sum, 0.0f);
        for (int key = 0; key < keys; key += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
            wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> b;
            wmma::load_matrix_sync(a, weights + key, keys);
            wmma::load_matrix_sync(b, v + (long long)key * D + column, D);
            wmma::mma_sync(sum, a, b, sum);
        }
        wmma::store_matrix_sync(o + column, sum, D, wmma::mem_row_major);
    }
}
