// Device functions that stay functions. functions.sm80.ptx is what NVRTC 13.5 makes of it for compute_80.

// Returns from inside of a loop, so lanes of a warp leave it at different times.
static __device__ __noinline__ float horner(float x, int terms, float limit) {
    float sum = 0.0f;
    for (int term = 0; term < terms; term++) {
        sum = sum * x + term;
        if (sum > limit) return limit;
    }
    return sum;
}

struct Moments { float sum, squares; int count; };

// A structure by value and one returned, and a call within a function.
static __device__ __noinline__ Moments add(Moments a, float x) {
    float y = horner(x, 3, 1e30f);
    a.sum += y;
    a.squares += y * y;
    a.count++;
    return a;
}

extern "C" __global__ void functions(const float* x, float* y, int n) {
    int thread = threadIdx.x;
    float limit = 20.0f;
    // Only some lanes call.
    float first = x[thread] > 0.0f ? horner(x[thread], thread % 7, limit) : -1.0f;
    Moments all = {0.0f, 0.0f, 0};
    for (int at = 0; at < n; at++) all = add(all, x[(thread + at) % blockDim.x]);
    y[4 * thread] = first;
    y[4 * thread + 1] = all.sum;
    y[4 * thread + 2] = all.squares;
    y[4 * thread + 3] = all.count;
}
