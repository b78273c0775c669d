//! A CPU with AMX for a process that is started, and what is missing for it.

use super::binaries::assert_current;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The level that has AMX.
pub const LEVEL: &str = "sapphirerapids";

/// What that level needs beside AMX and 64-bit code, as /proc/cpuinfo calls it.
const NEEDED: [&str; 9] = [
    "avx512bw",
    "avx512cd",
    "avx512vl",
    "avx512_bf16",
    "avx512_bitalg",
    "avx512ifma",
    "avx512vbmi",
    "avx512_vnni",
    "avx512_vpopcntdq",
];

/// Whether this CPU has AMX itself.
pub fn has_amx() -> bool {
    flags().split(' ').any(|flag| flag == "amx_bf16")
}

/// Whether code for [`LEVEL`] can run here with AMX emulated. Says who executes AMX, or why nothing is tested.
pub fn can_run() -> bool {
    let flags = flags();
    let lacks: Vec<&str> = NEEDED.into_iter().filter(|needed| !flags.split(' ').any(|flag| flag == *needed)).collect();
    match (lacks.is_empty(), has_amx()) {
        (true, true) => println!("NOTE: AMX instructions are executed by this CPU"),
        (true, false) => println!("NOTE: AMX instructions are emulated"),
        (false, _) => println!("NOTE: this CPU has no {}: code for AMX is not tested", lacks.join(", ")),
    }
    lacks.is_empty()
}

fn flags() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    info.lines().find(|line| line.starts_with("flags")).unwrap_or_default().to_owned()
}

/// Lets a command find AMX (tests/fake-amx).
pub fn with_amx(command: &mut Command) -> &mut Command {
    static CHECKED: OnceLock<()> = OnceLock::new();
    let library = Path::new(env!("CARGO_BIN_EXE_llmc")).with_file_name("libllmc_fake_amx.so");
    CHECKED.get_or_init(|| assert_current(&library, "llmc-fake-amx"));
    command.env("LD_PRELOAD", library)
}
