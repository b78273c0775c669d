//! A step calls the system only to wait: threads that have waited long let others have the CPU, or sleep until they are
//! woken. Anything else would be killed by the filter that these steps run under.

mod support;

use std::convert::Infallible;
use std::io::Error;
use support::{executor, steps_of_two_sequences};

/// What waiting takes. The clock is read without a call on most machines.
const WAITING: [i64; 3] = [libc::SYS_futex, libc::SYS_sched_yield, libc::SYS_clock_gettime];

/// Exit codes of the process that runs the steps, beside the number of the call that a step must not make. A process that
/// panics ends with another one.
const DONE: i32 = 254;
const NO_FILTER: i32 = 255;

#[test]
fn steps_call_the_system_only_to_wait() {
    // Compiled once, not by every process.
    support::shared_object();
    for threads in [1, 2, 5] {
        let code = in_a_process(|| run_filtered_steps(threads, &[]));
        assert_eq!(code, DONE, "{threads} threads: the code is the number of a call that a step made");
    }
    // The filter sees what comes behind the steps.
    assert_eq!(in_a_process(|| run_filtered_steps(2, &[libc::SYS_getppid])), libc::SYS_getppid as i32);
}

/// Runs something in a process of its own and returns the code that it ends with.
fn in_a_process(run: impl FnOnce() -> Infallible) -> i32 {
    // SAFETY: the only test of its binary forks, so that no other thread holds anything that the child needs.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "cannot fork: {}", Error::last_os_error());
    if child == 0 {
        run();
    }
    let mut status = 0;
    // SAFETY: a child of this process that nobody else waits for.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the process ended by signal {}", libc::WTERMSIG(status));
    let code = libc::WEXITSTATUS(status);
    assert_ne!(code, NO_FILTER, "the system takes no seccomp filter");
    code
}

/// Runs steps with a filter, then makes some calls, and ends the process.
fn run_filtered_steps(threads: usize, calls: &[i64]) -> Infallible {
    let mut executor = executor(threads);
    let (prefill, steps) = steps_of_two_sequences();
    executor.run(&prefill).unwrap();
    executor.run(&steps[0]).unwrap();
    if !install_filter() {
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(NO_FILTER) };
    }
    for step in &steps[1..] {
        executor.run(step).unwrap();
    }
    executor.run(&prefill).unwrap();
    for &call in calls {
        // SAFETY: the test names calls without arguments.
        unsafe { libc::syscall(call) };
    }
    // SAFETY: ends the process at once, threads included.
    unsafe { libc::_exit(DONE) };
}

/// From now on, on all threads, every call but those of [`WAITING`] and the process's end raises SIGSYS, which ends the process
/// with the call's number.
fn install_filter() -> bool {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let allowed: Vec<i64> = WAITING.into_iter().chain([libc::SYS_exit_group]).collect();
    let instruction = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut program = vec![instruction(LOAD_NUMBER, 0, 0)];
    for (index, &call) in allowed.iter().enumerate() {
        // To the last instruction, from behind this one.
        program.push(instruction(JUMP_IF_EQUAL, (allowed.len() - index) as u8, call as u32));
    }
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_TRAP));
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the handler only ends the process; the program outlives the call, which copies it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = end_with_call as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const filter,
            ) == 0
    }
}

extern "C" fn end_with_call(_: i32, info: *const libc::siginfo_t, _: *mut libc::c_void) {
    // Of SIGSYS: where the call was made, then its number (siginfo_t in the kernel's asm-generic/siginfo.h).
    // SAFETY: the kernel passes its siginfo, which is that long.
    unsafe { libc::_exit(*info.cast::<i32>().add(6)) };
}
