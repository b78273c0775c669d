//! Which machine a name means: one that comes with the compiler, the host as it was measured, or one from a file.

use llmc_ir::machine::Machine;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why there is no such machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No file, and no machine of that name.
    #[error("{0}, or a JSON file (with a `/` or `.` in its path)")]
    Unknown(String),
    /// A file that cannot be read.
    #[error("cannot read {}: {source}; {advice}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A file that holds something else.
    #[error("{} describes no machine: {detail}; expected a JSON object as `llmc calibrate -o FILE` writes it; {advice}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, on one line.
        detail: String,
        /// What to do.
        advice: &'static str,
    },
}

/// What the host is called.
const HOST: &str = "host";

/// The most bytes that are read of a description, which has a few hundred.
const LONGEST: u64 = 1 << 16;

const MEND_STORED: &str = "run `llmc calibrate` to measure again, or remove the file";
const MEND_GIVEN: &str = "correct the file or name another one";

/// The machine that a name means. A name with a `/` or `.` is a file. `host` is what `llmc calibrate` stored in
/// `config`, a directory as [`config_directory`] gives it, and else the one that comes with the compiler, as is every
/// other name.
///
/// # Errors
/// See [`MachineError`].
pub fn read(name: &str, config: Option<&Path>) -> Result<Machine, MachineError> {
    if name.contains(['/', '.']) {
        let path = Path::new(name);
        return read_file(path, MEND_GIVEN)?.ok_or_else(|| MachineError::Unreadable {
            path: path.to_owned(),
            source: ErrorKind::NotFound.into(),
            advice: MEND_GIVEN,
        });
    }
    if let (HOST, Some(config)) = (name, config)
        && let Some(machine) = read_file(&stored(config), MEND_STORED)?
    {
        return Ok(machine);
    }
    Machine::named(name).map_err(MachineError::Unknown)
}

/// Where `llmc calibrate` stores the host, below a directory as [`config_directory`] gives it.
pub fn stored(config: &Path) -> PathBuf {
    config.join("llmc/host.json")
}

/// Where this user's configuration is (XDG Base Directory Specification 0.8); `None` if there is no home.
pub fn config_directory() -> Option<PathBuf> {
    config_in(|name| std::env::var_os(name).map(PathBuf::from))
}

/// Of an environment. As the specification has it, relative paths are as good as none.
fn config_in(environment: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| environment(name).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))
}

/// `None`: there is no such file.
fn read_file(path: &Path, advice: &'static str) -> Result<Option<Machine>, MachineError> {
    let damaged = |detail: &str| MachineError::Damaged { path: path.to_owned(), detail: on_one_line(detail), advice };
    let unreadable = |source| MachineError::Unreadable { path: path.to_owned(), source, advice };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if !metadata.is_file() => return Err(damaged("it is no regular file")),
        Ok(metadata) if metadata.len() > LONGEST => return Err(damaged("it is far too long")),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| damaged(&error.to_string()))?;
    Machine::parse(text).map(Some).map_err(|error| damaged(&error))
}

/// A message that may quote the file, without what a terminal would obey.
fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn with_name(name: &str) -> String {
        let machine = Machine { name: name.to_owned(), ..Machine::named(HOST).unwrap() };
        serde_json::to_string_pretty(&machine).unwrap()
    }

    #[test]
    fn what_was_measured_comes_before_what_is_built_in() {
        let config = tempfile::tempdir().unwrap();
        let host = |config| read("host", config).unwrap();
        assert_eq!(host(None), Machine::named("host").unwrap());
        assert_eq!(host(Some(config.path())), Machine::named("host").unwrap());
        let path = stored(config.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, with_name("measured")).unwrap();
        assert_eq!(host(Some(config.path())).name, "measured");
        // Whoever asks for nothing stored gets nothing stored, and other names mean other machines.
        assert_eq!(host(None).name, "host");
        assert_eq!(read("a100", Some(config.path())).unwrap().name, "a100");
        assert_eq!(read(path.to_str().unwrap(), None).unwrap().name, "measured");
    }

    #[test]
    fn whatever_is_wrong_with_a_file_is_said_with_its_name_and_what_to_do() {
        let config = tempfile::tempdir().unwrap();
        let path = stored(config.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let good = with_name("x");
        let cases: [(Vec<u8>, &str); 9] = [
            (Vec::new(), "EOF"),
            (b"{".to_vec(), "EOF"),
            (b"\xff".to_vec(), "utf-8"),
            (b"[1, 2]".to_vec(), "line 1"),
            (vec![b'['; 1000], "line 1"),
            (vec![b' '; LONGEST as usize + 1], "too long"),
            (good.replace("launch_seconds", "lunch\\u001b[31m\\nseconds").into_bytes(), "seconds"),
            (good.replace("25000000000.0", "1e-300").into_bytes(), "memory_bandwidth"),
            (good.replace("25000000000.0", "1e999").into_bytes(), "number"),
        ];
        for (text, part) in cases {
            fs::write(&path, &text).unwrap();
            for (name, advice) in [("host", "llmc calibrate"), (path.to_str().unwrap(), "name another")] {
                let error = read(name, Some(config.path())).unwrap_err().to_string();
                for part in [part, advice, path.to_str().unwrap(), "JSON object"] {
                    assert!(error.contains(part), "`{part}` is not in {error:?}");
                }
                assert!(!error.contains(char::is_control), "{error:?}");
            }
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read("host", Some(config.path())).unwrap_err().to_string().contains("no regular file"));
        assert!(read("./nowhere.json", None).unwrap_err().to_string().contains("nowhere.json"));
        assert!(read("z80", None).unwrap_err().to_string().contains("a100"));
    }

    #[test]
    fn the_directory_is_that_of_the_specification() {
        let directory = |variables: &[(&str, &str)]| {
            let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
            config_in(|name| variables.get(name).map(PathBuf::from))
        };
        assert_eq!(directory(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]), Some("/c".into()));
        assert_eq!(directory(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "c")]), Some("/h/.config".into()));
        assert_eq!(directory(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "")]), Some("/h/.config".into()));
        assert_eq!(directory(&[("HOME", "")]), None);
    }
}
