// Products with quantised weights. quantised.sm80.ptx and quantised.sm90.ptx are what NVRTC 13.5 makes of it for compute_80 and compute_90.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <int THREADS>
static __device__ __forceinline__ float block_sum(float x) {
    __shared__ float parts[THREADS / 32];
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_down_sync(0xffffffff, x, offset);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int part = 0; part < THREADS / 32; part++) x += parts[part];
    return x;
}

// Rows of 8-bit activations with a scale, from bf16; one block per row.
extern "C" __global__ void quantise(const __nv_bfloat16* x, signed char* y, float* scales, int columns) {
    __shared__ unsigned largest;
    if (threadIdx.x == 0) largest = 0;
    __syncthreads();
    x += (long long)blockIdx.x * columns, y += (long long)blockIdx.x * columns;
    float own = 0;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) own = fmaxf(own, fabsf(__bfloat162float(x[column])));
    unsigned bits = __reduce_max_sync(0xffffffff, __float_as_uint(own));
    if (threadIdx.x % 32 == 0) atomicMax(&largest, bits);
    __syncthreads();
    float scale = __uint_as_float(largest) / 127.0f;
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    for (int column = threadIdx.x; column < columns; column += blockDim.x)
        y[column] = (signed char)__float2int_rn(__bfloat162float(x[column]) / scale);
}

// One row of 8-bit weights per block, 16 columns per thread and turn.
extern "C" __global__ void __launch_bounds__(64) gemv_w8a8(const int4* __restrict__ w, const int4* __restrict__ x, const float* __restrict__ w_scales,
    const float* __restrict__ x_scale, __nv_bfloat16* y, int columns) {
    int sum = 0;
    for (int at = threadIdx.x; at < columns / 16; at += 64) {
        int4 a = __ldg(w + (long long)blockIdx.x * (columns / 16) + at), b = __ldg(x + at);
        sum = __dp4a(a.x, b.x, sum), sum = __dp4a(a.y, b.y, sum), sum = __dp4a(a.z, b.z, sum), sum = __dp4a(a.w, b.w, sum);
    }
    float total = block_sum<64>((float)sum);
    if (threadIdx.x == 0) y[blockIdx.x] = __float2bfloat16(total * w_scales[blockIdx.x] * x_scale[0]);
}

// Weights of 4 bits, 8 per word, with a scale and a zero in half precision per 32 columns: the nibbles become halves 1024 + n by their bits.
extern "C" __global__ void __launch_bounds__(64) gemv_w4_half(const unsigned* __restrict__ w, const half2* __restrict__ scales_and_zeros,
    const half* __restrict__ x, float* y, int columns) {
    int row = blockIdx.x;
    float sum = 0;
    for (int word = threadIdx.x; word < columns / 8; word += 64) {
        unsigned packed = w[(long long)row * (columns / 8) + word];
        half2 group = scales_and_zeros[row * (columns / 32) + word / 4];
        half2 scale = __half2half2(__low2half(group)), zero = __half2half2(__high2half(group));
        uint4 loaded = *reinterpret_cast<const uint4*>(x + word * 8);
        const half2* activations = reinterpret_cast<const half2*>(&loaded);
        half2 part = __float2half2_rn(0.0f);
        for (int pair = 0; pair < 4; pair++) {
            // Nibbles 2 pair and 2 pair + 1 in the halves' low bits.
            unsigned two = packed >> (8 * pair), bits;
            asm("lop3.b32 %0, %1, 0x000f000f, 0x64006400, 0xea;" : "=r"(bits) : "r"((two & 0xf) | (two & 0xf0) << 12));
            half2 nibbles = __hsub2(*reinterpret_cast<half2*>(&bits), __float2half2_rn(1024.0f));
            part = __hfma2(__hmul2(__hsub2(nibbles, zero), scale), activations[pair], part);
        }
        sum += __low2float(part) + __high2float(part);
    }
    sum = block_sum<64>(sum);
    if (threadIdx.x == 0) y[row] = sum;
}

// Blocks of 32 weights of 4 bits (low nibbles first) with a half-precision scale, and activations in blocks of 32 bytes with scale and sum:
// integer products, the offset of 8 taken out by the sums.
struct Weights { half d; unsigned char q[16]; };
struct Activations { half2 scale_and_sum; signed char q[32]; };
extern "C" __global__ void gemv_w4a8(const Weights* __restrict__ w, const Activations* __restrict__ x, float* y, int rows, int blocks) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    float sum = 0;
    for (int at = threadIdx.x / 4; at < blocks; at += 8) {
        const Weights& a = w[(long long)row * blocks + at];
        int own = threadIdx.x % 4;
        const unsigned short* q = reinterpret_cast<const unsigned short*>(a.q + 4 * own);
        int packed = q[0] | q[1] << 16;
        int low = reinterpret_cast<const int*>(x[at].q)[own], high = reinterpret_cast<const int*>(x[at].q)[own + 4];
        int dot = __dp4a(packed & 0x0f0f0f0f, low, 0);
        dot = __dp4a(packed >> 4 & 0x0f0f0f0f, high, dot);
        float2 b = __half22float2(x[at].scale_and_sum);
        sum += __half2float(a.d) * (dot * b.x - (own == 0 ? 8.0f * b.y : 0.0f));
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffff, sum, offset);
    if (threadIdx.x == 0) y[row] = sum;
}

// 4-bit weights with a table of 16 values, as quantiles have: looked up by permuting bytes, multiplied as pairs of bf16.
__constant__ signed char levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
extern "C" __global__ void gemv_table(const unsigned* __restrict__ w, const __nv_bfloat162* __restrict__ x, float* y, int columns) {
    int row = blockIdx.x;
    float sum = 0;
    const unsigned* table = reinterpret_cast<const unsigned*>(levels);
    for (int word = threadIdx.x; word < columns / 8; word += 32) {
        unsigned packed = w[row * (columns / 8) + word];
        for (int half = 0; half < 2; half++) {
            unsigned nibbles = packed >> (16 * half);
            unsigned low = __byte_perm(table[0], table[1], nibbles & 0x7777), high = __byte_perm(table[2], table[3], nibbles & 0x7777);
            // Per nibble the byte of the upper table where its bit 3 is set.
            unsigned choice = __byte_perm(low, high, 0x3210 | (nibbles & 0x8888) >> 1);
            char4 values = *reinterpret_cast<char4*>(&choice);
            __nv_bfloat162 first = __floats2bfloat162_rn(values.x, values.y), second = __floats2bfloat162_rn(values.z, values.w);
            __nv_bfloat162 product = __hmul2(first, x[word * 4 + 2 * half]);
            float2 one = __bfloat1622float2(product), two = __bfloat1622float2(__hmul2(second, x[word * 4 + 2 * half + 1]));
            sum += one.x + one.y + two.x + two.y;
        }
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffff, sum, offset);
    if (threadIdx.x == 0) y[row] = sum;
}

// 8-bit product of tiles on matrix units: 16 rows, 8 columns per warp. a: [16, k], b: [columns, k].
extern "C" __global__ void mma_s8(const signed char* a, const signed char* b, int* c, int columns, int k) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4, column = blockIdx.x * 8;
    int d[4] = {};
    auto word = [](const signed char* p) { return *reinterpret_cast<const int*>(p); };
    for (int at = 0; at < k; at += 32)
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
            : "r"(word(a + g * k + at + 4 * t)), "r"(word(a + (g + 8) * k + at + 4 * t)), "r"(word(a + g * k + at + 16 + 4 * t)),
              "r"(word(a + (g + 8) * k + at + 16 + 4 * t)), "r"(word(b + (column + g) * k + at + 4 * t)), "r"(word(b + (column + g) * k + at + 16 + 4 * t)));
    for (int at = 0; at < 4; at++) c[(g + at / 2 * 8) * columns + column + 2 * t + at % 2] = d[at];
}
