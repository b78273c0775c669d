// CUDA C in the style of inference kernels. kernels.sm80.ptx is what NVRTC 13.5 makes of it for compute_80.
#include <cuda_fp16.h>
#include <cuda_bf16.h>

static __device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xffffffff, x, offset, 32);
    return x;
}

// One block per row; blockDim.x is a multiple of 32.
extern "C" __global__ void rms_norm(const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y, int columns, float epsilon) {
    __shared__ float partial[32];
    x += (long long)blockIdx.x * columns;
    y += (long long)blockIdx.x * columns;
    float sum = 0.0f;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) sum += x[column] * x[column];
    sum = warp_sum(sum);
    if (blockDim.x > 32) {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        if (lane == 0) partial[warp] = sum;
        __syncthreads();
        sum = lane < blockDim.x / 32 ? partial[lane] : 0.0f;
        sum = warp_sum(sum);
    }
    float scale = rsqrtf(sum / columns + epsilon);
    for (int column = threadIdx.x; column < columns; column += blockDim.x) y[column] = scale * x[column] * w[column];
}

struct block_q8 { half d; signed char q[32]; };

// Quantised rows times a quantised vector: one warp per row, four per block, early exit of whole warps.
extern "C" __global__ void q8_gemv(const block_q8* __restrict__ w, const block_q8* __restrict__ x, float* __restrict__ y, int rows, int blocks) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    float sum = 0.0f;
    for (int block = threadIdx.x / 8; block < blocks; block += 4) {
        const block_q8* a = w + (long long)row * blocks + block;
        const block_q8* b = x + block;
        int at = 4 * (threadIdx.x % 8);
        const unsigned short* pa = (const unsigned short*)(a->q + at);
        const unsigned short* pb = (const unsigned short*)(b->q + at);
        int va = pa[0] | (pa[1] << 16), vb = pb[0] | (pb[1] << 16);
        sum += __half2float(a->d) * __half2float(b->d) * __dp4a(va, vb, 0);
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) y[row] = sum;
}

// Softmax of a row with an online maximum, in shared memory.
extern "C" __global__ void softmax(const float* __restrict__ x, float* __restrict__ y, int columns) {
    extern __shared__ float row[];
    __shared__ float partial[32];
    x += (long long)blockIdx.x * columns;
    y += (long long)blockIdx.x * columns;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    float best = -__int_as_float(0x7f800000);
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        row[column] = x[column];
        best = fmaxf(best, x[column]);
    }
    for (int offset = 16; offset > 0; offset >>= 1) best = fmaxf(best, __shfl_xor_sync(0xffffffff, best, offset));
    if (lane == 0) partial[warp] = best;
    __syncthreads();
    best = lane < warps ? partial[lane] : -__int_as_float(0x7f800000);
    for (int offset = 16; offset > 0; offset >>= 1) best = fmaxf(best, __shfl_xor_sync(0xffffffff, best, offset));
    __syncthreads();
    float sum = 0.0f;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        float e = expf(row[column] - best);
        row[column] = e;
        sum += e;
    }
    sum = warp_sum(sum);
    if (lane == 0) partial[warp] = sum;
    __syncthreads();
    sum = warp_sum(lane < warps ? partial[lane] : 0.0f);
    for (int column = threadIdx.x; column < columns; column += blockDim.x) y[column] = row[column] / sum;
}

// Rotary embedding in place on bf16 pairs (i, i + half).
extern "C" __global__ void rope(__nv_bfloat16* x, const int* __restrict__ positions, int heads, int dim, float base) {
    int token = blockIdx.x, head = blockIdx.y, i = threadIdx.x;
    if (i >= dim / 2) return;
    __nv_bfloat16* at = x + ((long long)token * heads + head) * dim;
    float angle = positions[token] * powf(base, -2.0f * i / dim);
    float s, c;
    sincosf(angle, &s, &c);
    float a = __bfloat162float(at[i]), b = __bfloat162float(at[i + dim / 2]);
    at[i] = __float2bfloat16(a * c - b * s);
    at[i + dim / 2] = __float2bfloat16(a * s + b * c);
}

// bf16 rows times a vector with packed loads, one warp per row.
extern "C" __global__ void bf16_gemv(const uint4* __restrict__ w, const uint4* __restrict__ x, __nv_bfloat16* __restrict__ y, int vectors) {
    int row = blockIdx.x;
    float sum = 0.0f;
    for (int at = threadIdx.x; at < vectors; at += 32) {
        uint4 a = w[(long long)row * vectors + at], b = x[at];
        const __nv_bfloat162* pa = (const __nv_bfloat162*)&a;
        const __nv_bfloat162* pb = (const __nv_bfloat162*)&b;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 fa = __bfloat1622float2(pa[i]), fb = __bfloat1622float2(pb[i]);
            sum += fa.x * fb.x + fa.y * fb.y;
        }
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) y[row] = __float2bfloat16(sum);
}

// Position of the largest value, first one on ties.
extern "C" __global__ void argmax(const float* __restrict__ x, int* __restrict__ best_at, int count) {
    __shared__ float values[32];
    __shared__ int places[32];
    float best = -__int_as_float(0x7f800000);
    int place = 0x7fffffff;
    for (int at = threadIdx.x; at < count; at += blockDim.x)
        if (x[at] > best) { best = x[at]; place = at; }
    for (int offset = 16; offset > 0; offset >>= 1) {
        float other = __shfl_down_sync(0xffffffff, best, offset);
        int other_place = __shfl_down_sync(0xffffffff, place, offset);
        if (other > best || (other == best && other_place < place)) { best = other; place = other_place; }
    }
    if (threadIdx.x % 32 == 0) { values[threadIdx.x / 32] = best; places[threadIdx.x / 32] = place; }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < blockDim.x / 32; warp++)
            if (values[warp] > best || (values[warp] == best && places[warp] < place)) { best = values[warp]; place = places[warp]; }
        *best_at = place;
    }
}

// Integer and half-precision odds and ends: a switch, a histogram in shared memory, 64-bit division, local arrays.
extern "C" __global__ void odds(const unsigned* __restrict__ x, unsigned* __restrict__ histogram, unsigned long long* __restrict__ y, half2* __restrict__ h, int count) {
    __shared__ unsigned bins[16];
    if (threadIdx.x < 16) bins[threadIdx.x] = 0;
    __syncthreads();
    unsigned stack[8];
    for (int at = threadIdx.x; at < count; at += blockDim.x) {
        unsigned v = x[at], r;
        switch (v % 7) {
            case 0: r = v * 3; break;
            case 1: r = __popc(v); break;
            case 2: r = __clz(v); break;
            case 3: r = __brev(v); break;
            case 4: r = __umulhi(v, 0x9e3779b9u); break;
            case 5: r = __funnelshift_l(v, ~v, v & 31); break;
            default: r = __byte_perm(v, ~v, 0x2647); break;
        }
        for (int i = 0; i < 8; i++) stack[i] = r + i * v;
        atomicAdd(&bins[stack[v % 8] % 16], 1u);
        y[at] = (0x123456789abcdefull + r) / (v | 1) + (((unsigned long long)v << 32) % (r | 1));
        half2 a = __floats2half2_rn(v % 100, r % 50), b = __floats2half2_rn(0.5f, -2.0f);
        h[at] = __hfma2(a, b, __hadd2(a, a));
    }
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&histogram[threadIdx.x], bins[threadIdx.x]);
}
