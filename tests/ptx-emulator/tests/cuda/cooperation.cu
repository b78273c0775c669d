// Threads of a block at work together, through the headers that come with CUDA. cooperation.sm80.ptx and cooperation.sm90.ptx are what NVRTC 13.5
// makes of it for compute_80 and compute_90.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#define INFINITY __int_as_float(0x7f800000)
namespace groups = cooperative_groups;

// Norm of rows of bf16 in registers, added to a residual before; a warp takes several rows, by 16 bytes.
extern "C" __global__ void add_norm(uint4* residual, const uint4* x, const uint4* weight, uint4* y, int rows, int columns, float epsilon) {
    auto warp = groups::tiled_partition<32>(groups::this_thread_block());
    auto add = [](unsigned a, unsigned b) {
        __nv_bfloat162 sum = __hadd2(*reinterpret_cast<__nv_bfloat162*>(&a), *reinterpret_cast<__nv_bfloat162*>(&b));
        return *reinterpret_cast<unsigned*>(&sum);
    };
    for (int row = blockIdx.x * warp.meta_group_size() + warp.meta_group_rank(); row < rows; row += gridDim.x * warp.meta_group_size()) {
        float squares = 0;
        int pieces = columns / 8;
        for (int at = warp.thread_rank(); at < pieces; at += 32) {
            uint4 a = residual[row * pieces + at], b = x[row * pieces + at];
            a = make_uint4(add(a.x, b.x), add(a.y, b.y), add(a.z, b.z), add(a.w, b.w));
            residual[row * pieces + at] = a;
            for (unsigned bits : {a.x, a.y, a.z, a.w}) {
                float2 two = __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(&bits));
                squares += two.x * two.x + two.y * two.y;
            }
        }
        squares = groups::reduce(warp, squares, groups::plus<float>());
        float scale = rsqrtf(squares / columns + epsilon);
        for (int at = warp.thread_rank(); at < pieces; at += 32) {
            uint4 a = residual[row * pieces + at], w = __ldg(weight + at);
            unsigned *ap = &a.x, *wp = &w.x;
            for (int pair = 0; pair < 4; pair++) {
                float2 u = __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(ap + pair)), v = __bfloat1622float2(*reinterpret_cast<__nv_bfloat162*>(wp + pair));
                __nv_bfloat162 out = __floats2bfloat162_rn(u.x * scale * v.x, u.y * scale * v.y);
                ap[pair] = *reinterpret_cast<unsigned*>(&out);
            }
            y[row * pieces + at] = a;
        }
    }
}

// The k largest of a row, in order: a block looks for the next largest k times.
extern "C" __global__ void top_k(float* x, float* values, int* places, int columns, int k) {
    __shared__ unsigned long long best;
    auto block = groups::this_thread_block();
    x += (long long)blockIdx.x * columns;
    for (int turn = 0; turn < k; turn++) {
        if (block.thread_rank() == 0) best = 0;
        block.sync();
        unsigned long long own = 0;
        for (int at = block.thread_rank(); at < columns; at += block.size()) {
            int bits = __float_as_int(x[at]);
            unsigned key = bits < 0 ? ~bits : bits | 0x80000000u;
            unsigned long long candidate = (unsigned long long)key << 32 | (unsigned)~at;
            own = max(own, candidate);
        }
        own = groups::reduce(groups::tiled_partition<32>(block), own, groups::greater<unsigned long long>());
        if (block.thread_rank() % 32 == 0) atomicMax(&best, own);
        block.sync();
        int place = ~(unsigned)best;
        if (block.thread_rank() == 0) values[blockIdx.x * k + turn] = x[place], places[blockIdx.x * k + turn] = place;
        block.sync();
        if (block.thread_rank() == 0) x[place] = -INFINITY;
        block.sync();
    }
}

// Tokens sorted by expert: how many each has, where it starts, and who goes where. Places of one expert's tokens are in any order.
extern "C" __global__ void sort_by_expert(const int* experts, int tokens, int* starts, int* order) {
    __shared__ int counts[32];
    auto warp = groups::tiled_partition<32>(groups::this_thread_block());
    if (warp.meta_group_rank() == 0) counts[warp.thread_rank()] = 0;
    __syncthreads();
    for (int at = threadIdx.x; at < tokens; at += blockDim.x) {
        auto alike = groups::labeled_partition(groups::coalesced_threads(), experts[at]);
        if (alike.thread_rank() == 0) atomicAdd(counts + experts[at], (int)alike.size());
    }
    __syncthreads();
    if (warp.meta_group_rank() == 0) {
        int own = counts[warp.thread_rank()];
        counts[warp.thread_rank()] = groups::exclusive_scan(warp, own, groups::plus<int>());
        starts[warp.thread_rank()] = counts[warp.thread_rank()];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < tokens; at += blockDim.x) order[atomicAdd(counts + experts[at], 1)] = at;
}

// A sum over all blocks: the last one to finish adds up what the others left.
__device__ unsigned finished;
extern "C" __global__ void grid_sum(const float4* x, volatile float* parts, float* y, int count) {
    __shared__ bool last;
    auto block = groups::this_thread_block();
    auto warp = groups::tiled_partition<32>(block);
    __shared__ float sums[32];
    auto sum_of_block = [&](float v) {
        v = groups::reduce(warp, v, groups::plus<float>());
        if (warp.thread_rank() == 0) sums[warp.meta_group_rank()] = v;
        block.sync();
        v = warp.thread_rank() < warp.meta_group_size() ? sums[warp.thread_rank()] : 0.0f;
        block.sync();
        return groups::reduce(warp, v, groups::plus<float>());
    };
    float own = 0;
    for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < count; at += gridDim.x * blockDim.x) {
        float4 four = __ldcs(x + at);
        own += four.x + four.y + four.z + four.w;
    }
    own = sum_of_block(own);
    if (block.thread_rank() == 0) {
        parts[blockIdx.x] = own;
        __threadfence();
        last = atomicInc(&finished, gridDim.x - 1) == gridDim.x - 1;
    }
    block.sync();
    if (!last) return;
    float total = 0;
    for (int at = block.thread_rank(); at < gridDim.x; at += block.size()) total += parts[at];
    total = sum_of_block(total);
    if (block.thread_rank() == 0) *y = total;
}

// Softmax over rows that stream through a pipeline of copies, in half precision: online maximum and sum, then a second pass.
extern "C" __global__ void __launch_bounds__(64) piped_softmax(const half2* x, half2* y, int columns) {
    __shared__ half2 stages[3][64];
    __shared__ float2 pairs[2];
    int pieces = columns / 2, turns = (pieces + 63) / 64;
    x += (long long)blockIdx.x * pieces, y += (long long)blockIdx.x * pieces;
    auto fetch = [&](int turn) {
        int at = turn * 64 + threadIdx.x;
        if (at < pieces) __pipeline_memcpy_async(&stages[turn % 3][threadIdx.x], x + at, 4);
        __pipeline_commit();
    };
    fetch(0), fetch(1);
    float best = -INFINITY, sum = 0;
    for (int turn = 0; turn < turns; turn++) {
        fetch(turn + 2);
        __pipeline_wait_prior(2);
        if (turn * 64 + threadIdx.x < pieces) {
            float2 two = __half22float2(stages[turn % 3][threadIdx.x]);
            float next = fmaxf(best, fmaxf(two.x, two.y));
            sum = sum * __expf(best - next) + __expf(two.x - next) + __expf(two.y - next);
            best = next;
        }
    }
    __pipeline_wait_prior(0);
    for (int offset = 16; offset > 0; offset /= 2) {
        float other = __shfl_xor_sync(0xffffffff, best, offset), others = __shfl_xor_sync(0xffffffff, sum, offset), next = fmaxf(best, other);
        sum = next == -INFINITY ? 0.0f : sum * __expf(best - next) + others * __expf(other - next);
        best = next;
    }
    if (threadIdx.x % 32 == 0) pairs[threadIdx.x / 32] = make_float2(best, sum);
    __syncthreads();
    best = fmaxf(pairs[0].x, pairs[1].x);
    sum = pairs[0].y * __expf(pairs[0].x - best) + pairs[1].y * __expf(pairs[1].x - best);
    for (int at = threadIdx.x; at < pieces; at += 64) {
        half2 two = x[at], shift = __float2half2_rn(best);
        y[at] = __hmul2(h2exp(__hsub2(two, shift)), __float2half2_rn(1.0f / sum));
    }
}
