//! What this machine's CPUs can do, and which of them the process may use.

use llmc_artifact::HostCode;
use std::collections::BTreeSet;
use std::io;
use std::sync::OnceLock;

/// Features that LLVM and /proc/cpuinfo name differently, in normal form: (LLVM's, cpuinfo's).
const SYNONYMS: [(&str, &str); 13] = [
    ("sse3", "pni"),
    ("lzcnt", "abm"),
    ("pclmul", "pclmulqdq"),
    ("rdrnd", "rdrand"),
    ("sahf", "lahflm"),
    ("sha", "shani"),
    ("bmi", "bmi1"),
    ("cx16", "cmpxchg16b"),
    ("prfchw", "3dnowprefetch"),
    ("x87", "fpu"),
    ("crc32", "sse42"),
    ("64bit", "lm"),
    ("avx512vpopcntdq", "avx512vpopcnt"),
];

/// Features per x86-64 level, as far as they tell the levels apart.
const LEVELS: [(&str, &[&str]); 3] = [
    ("x86-64-v4", &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"]),
    ("x86-64-v3", &["avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"]),
    ("x86-64-v2", &["ssse3", "sse41", "sse42", "popcnt"]),
];

/// The features of this CPU that the kernel lets programs use, in normal form.
pub fn features() -> BTreeSet<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags").or(line.strip_prefix("Features")));
    let flags = flags.and_then(|line| line.split_once(':')).map_or("", |(_, flags)| flags);
    with_synonyms(flags.split_whitespace())
}

/// The features that a target needs and this CPU lacks, under the names that the target uses.
pub fn missing_features(target: &HostCode, available: &BTreeSet<String>) -> Vec<String> {
    target.cpu_features.iter().filter(|feature| !available.contains(&normal_form(feature))).cloned().collect()
}

/// Asks the kernel for what a target needs beyond instructions: AMX's registers, once per process.
pub(super) fn enable_features(target: &HostCode) -> Result<(), String> {
    if target.cpu_features.iter().any(|feature| normal_form(feature).starts_with("amx")) {
        request_amx().map_err(|error| format!("the kernel does not permit AMX: {error}"))?;
    }
    Ok(())
}

/// The highest x86-64 level that has only available features.
pub(super) fn best_level(available: &BTreeSet<String>) -> &'static str {
    let fits = |features: &[&str]| features.iter().all(|&feature| available.contains(feature));
    LEVELS.iter().find(|(_, features)| fits(features)).map_or("x86-64", |(name, _)| name)
}

/// The CPUs that the process was allowed to use when this module was first asked.
pub fn available_cpus() -> &'static [usize] {
    &usable().cpus
}

/// How many threads a step uses unless told otherwise: one per CPU that the process may use,
/// a quota on its CPU time considered.
pub fn default_threads() -> usize {
    let usable = usable();
    usable.cpus.len().min(usable.parallelism)
}

struct Usable {
    cpus: Vec<usize>,
    parallelism: usize,
}

/// Asked of the system only once: a thread that was bound to a CPU would be told of that one alone.
fn usable() -> &'static Usable {
    static USABLE: OnceLock<Usable> = OnceLock::new();
    USABLE.get_or_init(|| {
        let mut set = empty_set();
        // SAFETY: `set` is a valid set of the size given.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
        // SAFETY: the number is below the set's size.
        let is_set = |&cpu: &usize| result == 0 && unsafe { libc::CPU_ISSET(cpu, &set) };
        let mut cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(is_set).collect();
        if cpus.is_empty() {
            cpus.push(0);
        }
        Usable { cpus, parallelism: std::thread::available_parallelism().map_or(1, usize::from) }
    })
}

/// Restricts the calling thread to `cpus`. Speed is all that depends on it, so failing is no error.
pub(super) fn bind_thread(cpus: &[usize]) {
    let mut set = empty_set();
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is below the set's size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is a valid set of the size given; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: a set is an array of integers, for which zero is valid and means empty.
    unsafe { std::mem::zeroed() }
}

#[cfg(target_arch = "x86_64")]
fn request_amx() -> io::Result<()> {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this operation takes a number and writes no memory.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_arch = "x86_64"))]
fn request_amx() -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Lower case without separators: `avx512_bf16`, `avx512bf16`, `AVX512-BF16` are one feature.
fn normal_form(feature: &str) -> String {
    feature.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn with_synonyms<'a>(flags: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut features: BTreeSet<String> = flags.map(normal_form).collect();
    for (one, other) in SYNONYMS {
        if features.contains(one) || features.contains(other) {
            features.extend([one.to_owned(), other.to_owned()]);
        }
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(features: &[&str]) -> HostCode {
        HostCode {
            name: "t".to_owned(),
            cpu_features: features.iter().map(|&feature| feature.to_owned()).collect(),
            tensor: "code/t".to_owned(),
            scratch_bytes: 0,
        }
    }

    #[test]
    fn names_of_llvm_and_of_the_kernel_mean_the_same() {
        let available = with_synonyms("fpu cx16 pni abm avx512_bf16 amx_tile sse4_2 sha_ni".split(' '));
        let wanted =
            target(&["sse3", "lzcnt", "avx512bf16", "amx-tile", "sse4.2", "crc32", "sha", "x87", "cmpxchg16b"]);
        assert_eq!(missing_features(&wanted, &available), Vec::<String>::new());
        assert_eq!(missing_features(&target(&["avx2", "sse3"]), &available), ["avx2"]);
    }

    #[test]
    fn levels_are_suggested_by_features() {
        assert_eq!(best_level(&with_synonyms("sse2".split(' '))), "x86-64");
        assert_eq!(best_level(&with_synonyms("ssse3 sse4_1 sse4_2 popcnt".split(' '))), "x86-64-v2");
        assert_eq!(best_level(&with_synonyms("avx2 fma bmi1 bmi2 f16c movbe".split(' '))), "x86-64-v3");
    }

    #[test]
    fn this_machine_has_cpus_and_features() {
        assert!(!available_cpus().is_empty() && default_threads() >= 1);
        if cfg!(target_arch = "x86_64") {
            assert!(features().contains("sse2"));
        }
    }
}
