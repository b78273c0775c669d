//! Every check of the emulator finds the defect it is for, names its place, and leaves the sound neighbour alone.

mod barriers;
mod memory;
mod parse;
mod races;
mod reconvergence;
mod registers;

use llmc_ptx_emulator::{Counters, Fault, LaunchConfig, LaunchError, Memory, Module, launch};

/// What every module starts with.
pub const HEAD: &str = ".version 8.5\n.target sm_80\n.address_size 64\n";

/// Words of the buffer that `%rd1` points to, all written.
pub const WORDS: u64 = 4096;

/// A kernel around `body`: thread index in `%tid`, address of the buffer in `%rd1`, address of the thread's word in `%rd2`, 4 KiB of
/// shared memory called `tile` whose first address is in `%tile` and the thread's word in `%own`.
pub fn module(body: &str) -> Module {
    let text = format!(
        "{HEAD}.shared .align 16 .b8 tile[4096];
.visible .entry k(.param .u64 p) {{
.reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .b16 %h<9>; .reg .pred %p<9>; .reg .b32 %t, %tile, %own;
ld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x; mad.wide.u32 %rd2, %t, 4, %rd1; mov.u32 %tile, tile; mad.lo.u32 %own, %t, 4, %tile;
{body}
ret;
}}"
    );
    Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Launches one block of `threads` threads.
pub fn run(threads: u32, body: &str) -> Result<(Counters, Vec<u32>), LaunchError> {
    let module = module(body);
    let mut memory = Memory::new();
    let address = memory.allocate(4 * WORDS);
    memory.fill(address, 0, 4 * WORDS).unwrap();
    let config = LaunchConfig { instruction_limit: 100_000, ..LaunchConfig::new([1, 1, 1], [threads, 1, 1], 0) };
    let counters = launch(&module, "k", config, &[address.into()], &mut memory)?;
    let bytes = memory.read(address, 4 * WORDS).unwrap();
    Ok((counters, bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()))
}

/// The fault that a block of `threads` threads ends with.
pub fn fault(threads: u32, body: &str) -> Fault {
    match run(threads, body) {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

/// Checks that the body runs to its end.
pub fn sound(threads: u32, body: &str) {
    if let Err(error) = run(threads, body) {
        panic!("{error}");
    }
}
