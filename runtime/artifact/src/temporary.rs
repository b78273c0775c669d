//! A file that appears under its name only when it is complete.

use crate::error::ArtifactError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file being written. Dropping it without [`Temporary::persist`] leaves nothing behind; where the
/// file system can hold nameless files, neither does killing the process.
pub(crate) struct Temporary {
    file: File,
    /// Where it will be.
    path: PathBuf,
    /// A name that it has until then, if it has one.
    name: Option<PathBuf>,
}

impl Temporary {
    /// Opens an empty file on the file system of `path`.
    pub fn create(path: &Path) -> Result<Temporary, ArtifactError> {
        let path = &destination(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE).mode(0o666).open(directory(path)) {
            return Ok(Temporary { file, path: path.to_owned(), name: None });
        }
        let name = partial_name(path);
        let file = options.create(true).truncate(true).open(&name).map_err(ArtifactError::io("create", path))?;
        Ok(Temporary { file, path: path.to_owned(), name: Some(name) })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the system begin to bring written bytes to the disk, so that there is less to wait for in the end.
    pub fn begin_writing_back(&self, bytes: Range<u64>) {
        use std::os::fd::AsRawFd;
        let (start, length) = (bytes.start.cast_signed(), (bytes.end - bytes.start).cast_signed());
        // SAFETY: the descriptor is open. Failing costs time only: `persist` hears of what went wrong.
        let _ = unsafe { libc::sync_file_range(self.file.as_raw_fd(), start, length, libc::SYNC_FILE_RANGE_WRITE) };
    }

    /// Makes the contents durable and gives the file its name, replacing what had it.
    pub fn persist(mut self) -> Result<(), ArtifactError> {
        let path = self.path.clone();
        self.file.sync_all().map_err(ArtifactError::io("write", &path))?;
        if self.name.is_none() {
            self.name = Some(link(&self.file, &path).map_err(ArtifactError::io("create", &path))?);
        }
        if let Some(name) = &self.name {
            fs::rename(name, &path).map_err(ArtifactError::io("create", &path))?;
        }
        self.name = None;
        let directory = directory(&path);
        File::open(&directory).and_then(|file| file.sync_all()).map_err(ArtifactError::io("write", &directory))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nothing better can be done if this fails too.
            let _ = fs::remove_file(name);
        }
    }
}

/// Writes a whole file, which appears under its name only when it is complete.
///
/// # Errors
/// If the file system refuses. What was at `path` is then as it was before.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    let temporary = Temporary::create(path)?;
    temporary.file().write_all(bytes).map_err(ArtifactError::io("write", temporary.path()))?;
    temporary.persist()
}

/// Whether a file could be written to `path`, as far as that can be known before: for those who have much to do first.
///
/// # Errors
/// As of [`write_file`].
pub fn check_writable(path: &Path) -> Result<(), ArtifactError> {
    Temporary::create(path).map(drop)
}

/// Where the file goes: through a symbolic link, and never in place of what is not a file, which renaming would replace.
fn destination(path: &Path) -> Result<PathBuf, ArtifactError> {
    let refuse = |kind, message: &str| {
        let source = io::Error::new(kind, message);
        Err(ArtifactError::Io { action: "write to", path: path.to_owned(), source })
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            refuse(io::ErrorKind::IsADirectory, "it is a directory, name a file in it")
        }
        Ok(metadata) if !metadata.is_file() => {
            refuse(io::ErrorKind::InvalidInput, "it is a device or a pipe, name a regular file")
        }
        Ok(_) if path.is_symlink() => fs::canonicalize(path).map_err(ArtifactError::io("write to", path)),
        Ok(_) | Err(_) => Ok(path.to_owned()),
    }
}

/// Gives a nameless file a temporary name beside `path`, because linking cannot replace a file.
fn link(file: &File, path: &Path) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let name = partial_name(path);
    match fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let source = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let target = std::ffi::CString::new(name.as_os_str().as_bytes())?;
    // SAFETY: both are null-terminated strings that outlive the call.
    let result = unsafe {
        libc::linkat(libc::AT_FDCWD, source.as_ptr(), libc::AT_FDCWD, target.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    if result == 0 { Ok(name) } else { Err(io::Error::last_os_error()) }
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_only_when_persisted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let list = || fs::read_dir(directory.path()).unwrap().count();
        let temporary = Temporary::create(&path).unwrap();
        drop(temporary);
        assert_eq!(list(), 0);
        for text in ["first", "second"] {
            let temporary = Temporary::create(&path).unwrap();
            temporary.file().write_all(text.as_bytes()).unwrap();
            temporary.persist().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(list(), 1);
        }
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (link, file) = (directory.path().join("link"), directory.path().join("file"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let temporary = Temporary::create(&link).unwrap();
        temporary.file().write_all(b"new").unwrap();
        temporary.persist().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn devices_are_not_replaced() {
        let error = Temporary::create(Path::new("/dev/null")).err().unwrap().to_string();
        assert!(error.contains("/dev/null") && error.contains("regular file"), "{error}");
    }

    #[test]
    fn errors_name_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let error = Temporary::create(directory.path()).err().unwrap().to_string();
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
        let missing = directory.path().join("no/such/out");
        let error = Temporary::create(&missing).err().unwrap().to_string();
        assert!(error.contains("no/such/out"), "{error}");
    }
}
