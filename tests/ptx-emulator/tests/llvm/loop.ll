; A loop with a branch, a local array, shared memory and warp intrinsics. loop.sm80.ptx is what llc 19 makes of it for sm_80.
target triple = "nvptx64-nvidia-cuda"
@smem = internal addrspace(3) global [256 x float] undef, align 16
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare void @llvm.nvvm.barrier0()
declare float @llvm.nvvm.ex2.approx.ftz.f(float)
declare i32 @llvm.nvvm.shfl.sync.bfly.i32(i32,i32,i32,i32)
declare i32 @llvm.nvvm.redux.sync.add(i32,i32)
define ptx_kernel void @k(ptr addrspace(1) noalias readonly %in, ptr addrspace(1) %out, i32 %n) {
entry:
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %a = alloca [8 x float], align 16
  br label %loop
loop:
  %i = phi i32 [0, %entry], [%i1, %latch]
  %acc = phi float [0.0, %entry], [%acc1, %latch]
  %p = getelementptr float, ptr addrspace(1) %in, i32 %i
  %v4 = load <4 x float>, ptr addrspace(1) %p, align 16, !invariant.load !0
  %e0 = extractelement <4 x float> %v4, i32 0
  %e3 = extractelement <4 x float> %v4, i32 3
  %c = fcmp ogt float %e0, %e3
  br i1 %c, label %then, label %else
then:
  %x = call float @llvm.nvvm.ex2.approx.ftz.f(float %e0)
  br label %latch
else:
  %y = fmul float %e3, 3.0
  br label %latch
latch:
  %z = phi float [%x, %then], [%y, %else]
  %tm = and i32 %i, 7
  %ap = getelementptr float, ptr %a, i32 %tm
  store float %z, ptr %ap
  %tf = uitofp i32 %t to float
  %fm = fmul contract float %z, %tf
  %acc1 = fadd contract float %acc, %fm
  %i1 = add i32 %i, 4
  %d = icmp slt i32 %i1, %n
  br i1 %d, label %loop, label %exit
exit:
  %sp = getelementptr float, ptr addrspace(3) @smem, i32 %t
  store float %acc1, ptr addrspace(3) %sp
  call void @llvm.nvvm.barrier0()
  %tx = xor i32 %t, 37
  %sq = getelementptr float, ptr addrspace(3) @smem, i32 %tx
  %l = load float, ptr addrspace(3) %sq
  %h = fptrunc float %l to bfloat
  %h2 = fptrunc float %l to half
  %b = bitcast float %l to i32
  %r = call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 %b, i32 3, i32 31)
  %rr = call i32 @llvm.nvvm.redux.sync.add(i32 %r, i32 -1)
  %op = getelementptr i32, ptr addrspace(1) %out, i32 %t
  %hb = bitcast bfloat %h to i16
  %hz = zext i16 %hb to i32
  %hc = bitcast half %h2 to i16
  %hy = zext i16 %hc to i32
  %q = add i32 %hz, %rr
  %q2 = xor i32 %q, %hy
  %a0 = load float, ptr %a
  %a0i = bitcast float %a0 to i32
  %q3 = add i32 %q2, %a0i
  store i32 %q3, ptr addrspace(1) %op
  ret void
}
!0 = !{}
