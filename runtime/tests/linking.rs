//! The binary needs nothing on the machine that runs it but the C library.

use std::process::Command;

/// What every Linux system has: the C library, its parts, the loader, and GCC's unwinder.
const ALLOWED: [&str; 8] = [
    "linux-vdso.so.1",
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
];

#[test]
fn only_the_c_library_is_linked() {
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_llmrt")).output().expect("ldd can be run");
    assert!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).expect("ldd writes text");
    let libraries = listing.lines().filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = libraries.map(|path| path.rsplit('/').next().unwrap_or(path)).collect();
    assert!(names.contains(&"libc.so.6"), "ldd found too little:\n{listing}");
    let others: Vec<_> = names.iter().filter(|name| !ALLOWED.contains(name)).collect();
    assert!(others.is_empty(), "llmrt links {others:?}:\n{listing}");
}
