//! What the system says of the machine: its CPU, caches and memory.

use crate::memory::free_memory;
use std::fs;
use std::path::Path;

/// What measurements depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The CPU as it calls itself.
    pub cpu: String,
    /// Threads that this process can run at the same time.
    pub threads: usize,
    /// Bytes of a core's first-level data cache.
    pub first_level: usize,
    /// Bytes of a core's second-level cache.
    pub second_level: usize,
    /// Bytes of the largest cache.
    pub largest_cache: usize,
    /// Bytes that can be had without anything being swapped out.
    pub free_memory: Option<u64>,
}

/// What caches are taken for if the system does not say: the least that CPUs of this decade have.
const FIRST_LEVEL: usize = 32 << 10;
const SECOND_LEVEL: usize = 512 << 10;

impl Hardware {
    /// Of this machine.
    pub fn here() -> Hardware {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let caches = caches(Path::new("/sys/devices/system/cpu/cpu0/cache"));
        let level = |level: u32| caches.iter().find(|(known, _)| *known == level).map(|(_, bytes)| *bytes);
        let second_level = level(2).unwrap_or(SECOND_LEVEL);
        Hardware {
            cpu: cpu_name(&read("/proc/cpuinfo")),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            first_level: level(1).unwrap_or(FIRST_LEVEL),
            second_level,
            largest_cache: caches.iter().map(|(_, bytes)| *bytes).max().unwrap_or(second_level),
            free_memory: free_memory(),
        }
    }
}

/// Without control characters and repeated spaces: it ends up in files and on terminals.
fn cpu_name(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':')).map_or("", |(_, name)| name);
    let words: Vec<&str> =
        name.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { "a CPU without a name".to_owned() } else { words.join(" ") }
}

/// Level and size of every cache for data.
fn caches(directory: &Path) -> Vec<(u32, usize)> {
    let read = |index: u32, name: &str| {
        let text = fs::read_to_string(directory.join(format!("index{index}")).join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let cache = |index: u32| {
        let kind = read(index, "type")?;
        let kilobytes: usize = read(index, "size")?.strip_suffix('K')?.parse().ok()?;
        let level = read(index, "level")?.parse().ok()?;
        (kind != "Instruction" && kilobytes > 0).then_some((level, kilobytes << 10))
    };
    // No CPU has more levels than that, two caches each.
    (0..10).filter_map(cache).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_on_one_line() {
        let name = |text: &str| cpu_name(&format!("processor\t: 0\nmodel name\t: {text}\nflags\t: fpu\n"));
        assert_eq!(name("Intel(R)  Xeon(R)\x1b[31m CPU "), "Intel(R) Xeon(R) [31m CPU");
        assert_eq!(name(""), "a CPU without a name");
        assert_eq!(cpu_name(""), "a CPU without a name");
    }

    #[test]
    fn caches_are_those_for_data() {
        let directory = tempfile::tempdir().unwrap();
        for (index, level, kind, size) in [
            (0, "1", "Data", "48K"),
            (1, "1", "Instruction", "64K"),
            (2, "2", "Unified", "2048K"),
            (3, "3", "Unified", ""),
        ] {
            let directory = directory.path().join(format!("index{index}"));
            fs::create_dir(&directory).unwrap();
            for (name, text) in [("level", level), ("type", kind), ("size", size)] {
                fs::write(directory.join(name), format!("{text}\n")).unwrap();
            }
        }
        assert_eq!(caches(directory.path()), [(1, 48 << 10), (2, 2 << 20)]);
        assert_eq!(caches(&directory.path().join("nothing")), []);
    }
}
