# Triton kernels of our own: causal grouped-query flash attention, paged decode attention, a single-precision product on tensor
# cores, and a quantised matrix times vector. Compiled by Triton 3.9 for sm_80 with 4 warps and 3 stages; debug sections removed.
#   flash:  HQ=4 HK=2 D=64 BM=64 BN=32, pointers, strides and T divisible by 16 except T; 24576 bytes of shared memory
#   paged:  HQ=6 HK=2 D=64 P=16 G=16; 6660 bytes
#   f32mm:  BM=BN=BK=32, N and K divisible by 16; 16384 bytes
#   q8gemv: BN=4 BK=256, K divisible by 16; 1024 bytes
import triton, triton.language as tl
@triton.jit
def flash(q, k, v, o, sq, sk, sv, so, T, scale, HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    pm = tl.program_id(0); h = tl.program_id(1)
    hk = h // (HQ // HK)
    om = pm*BM + tl.arange(0, BM); od = tl.arange(0, D); on = tl.arange(0, BN)
    qv = tl.load(q + om[:, None]*sq + h*D + od[None, :], mask=om[:, None] < T, other=0.0)
    m = tl.full((BM,), -float('inf'), tl.float32); l = tl.zeros((BM,), tl.float32); acc = tl.zeros((BM, D), tl.float32)
    for s in range(0, (pm+1)*BM, BN):
        n = s + on
        kv = tl.load(k + n[None, :]*sk + hk*D + od[:, None], mask=n[None, :] < T, other=0.0)
        vv = tl.load(v + n[:, None]*sv + hk*D + od[None, :], mask=n[:, None] < T, other=0.0)
        x = tl.dot(qv, kv) * scale
        x = tl.where(om[:, None] >= n[None, :], x, -float('inf'))
        nm = tl.maximum(m, tl.max(x, 1))
        p = tl.exp2(x - nm[:, None]); a = tl.exp2(m - nm)
        l = l*a + tl.sum(p, 1); acc = acc*a[:, None]
        acc = tl.dot(p.to(tl.bfloat16), vv, acc); m = nm
    acc = acc / l[:, None]
    tl.store(o + om[:, None]*so + h*D + od[None, :], acc.to(tl.bfloat16), mask=om[:, None] < T)

@triton.jit
def paged(q, kc, vc, o, table, lens, scale, maxb, HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, P: tl.constexpr, G: tl.constexpr):
    b = tl.program_id(0); hk = tl.program_id(1)
    n = tl.load(lens + b)
    od = tl.arange(0, D); og = tl.arange(0, G); op = tl.arange(0, P)
    R: tl.constexpr = HQ // HK
    qv = tl.load(q + b*HQ*D + (hk*R + og)[:, None]*D + od[None, :], mask=og[:, None] < R, other=0.0)
    m = tl.full((G,), -float('inf'), tl.float32); l = tl.zeros((G,), tl.float32); acc = tl.zeros((G, D), tl.float32)
    for i in range(0, tl.cdiv(n, P)):
        blk = tl.load(table + b*maxb + i).to(tl.int64)
        pos = i*P + op
        kv = tl.load(kc + blk*P*HK*D + op[None, :]*HK*D + hk*D + od[:, None], mask=pos[None, :] < n, other=0.0)
        vv = tl.load(vc + blk*P*HK*D + op[:, None]*HK*D + hk*D + od[None, :], mask=pos[:, None] < n, other=0.0)
        x = tl.dot(qv, kv)*scale
        x = tl.where(pos[None, :] < n, x, -float('inf'))
        nm = tl.maximum(m, tl.max(x, 1))
        p = tl.exp2(x - nm[:, None]); a = tl.exp2(m - nm)
        l = l*a + tl.sum(p, 1); acc = acc*a[:, None]
        acc = tl.dot(p.to(tl.bfloat16), vv, acc); m = nm
    acc = acc/l[:, None]
    tl.store(o + b*HQ*D + (hk*R + og)[:, None]*D + od[None, :], acc.to(tl.bfloat16), mask=og[:, None] < R)

@triton.jit
def f32mm(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    om = tl.program_id(0)*BM + tl.arange(0, BM); on = tl.program_id(1)*BN + tl.arange(0, BN); ok = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        x = tl.load(a + om[:, None]*K + (k+ok)[None, :]); y = tl.load(b + (k+ok)[:, None]*N + on[None, :])
        acc = tl.dot(x, y, acc)
    tl.store(c + om[:, None]*N + on[None, :], acc)

@triton.jit
def q8gemv(w, s, x, y, N, K, BN: tl.constexpr, BK: tl.constexpr):
    n = tl.program_id(0)*BN + tl.arange(0, BN); ok = tl.arange(0, BK)
    acc = tl.zeros((BN, BK), tl.float32)
    for k in range(0, K, BK):
        wv = tl.load(w + n[:, None]*K + (k+ok)[None, :]).to(tl.float32)
        sv = tl.load(s + n[:, None]*(K//32) + ((k+ok)//32)[None, :]).to(tl.float32)
        xv = tl.load(x + k + ok).to(tl.float32)
        acc += wv*sv*xv[None, :]
    tl.store(y + n, tl.sum(acc, 1).to(tl.float16), mask=n < N)
