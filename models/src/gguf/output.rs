//! The output directory: files appear under their names only when all of them are complete.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::{NamedTempFile, TempPath};

use super::error::{GgufError, Problem};

/// Files that are written but not visible yet. Dropped without [`publish`](Staged::publish), it leaves nothing behind.
pub(super) struct Staged {
    /// The GGUF file, for messages.
    source: PathBuf,
    directory: PathBuf,
    /// Whether the directory was created here and has to go again on failure.
    created: bool,
    files: Vec<(TempPath, &'static str)>,
    published: bool,
}

/// Bytes that are buffered before they are written.
const BUFFER: usize = 1 << 20;

impl Staged {
    /// Creates the directory if needed.
    pub(super) fn create(source: &Path, directory: &Path) -> Result<Staged, GgufError> {
        let created = !directory.exists();
        fs::create_dir_all(directory).map_err(|source| io_error(directory, "create the directory", source))?;
        Ok(Staged {
            source: source.to_path_buf(),
            directory: directory.to_path_buf(),
            created,
            files: Vec::new(),
            published: false,
        })
    }

    /// Writes one file under a temporary name in the directory.
    pub(super) fn write(
        &mut self,
        name: &'static str,
        content: impl FnOnce(&mut dyn Write) -> Result<(), WriteError>,
    ) -> Result<(), GgufError> {
        let path = self.directory.join(name);
        let io = |source| io_error(&path, "write", source);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".llmc-import-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What the umask leaves of it, as for any other new file; the default would be private to the user.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let file: NamedTempFile = builder.tempfile_in(&self.directory).map_err(io)?;
        let mut writer = BufWriter::with_capacity(BUFFER, file);
        content(&mut writer).map_err(|error| match error {
            WriteError::Io(source) => io(source),
            WriteError::Source(problem) => problem.in_file(&self.source),
            WriteError::Interrupted => GgufError::Interrupted,
        })?;
        let file = writer.into_inner().map_err(|error| io(error.into_error()))?;
        self.files.push((file.into_temp_path(), name));
        Ok(())
    }

    /// Writes one JSON file for machines: on one line, since a vocabulary has hundreds of thousands of entries.
    pub(super) fn write_compact_json(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), GgufError> {
        self.write(name, |out| Ok(serde_json::to_writer(out, value).map_err(io::Error::from)?))
    }

    /// Writes one JSON file for people.
    pub(super) fn write_json(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), GgufError> {
        self.write(name, |out| {
            serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
            Ok(out.write_all(b"\n")?)
        })
    }

    /// Gives all files their names, in the order in which they were written, and returns their paths.
    pub(super) fn publish(mut self) -> Result<Vec<PathBuf>, GgufError> {
        let mut paths = Vec::new();
        for (file, name) in self.files.drain(..) {
            let path = self.directory.join(name);
            file.persist(&path).map_err(|error| io_error(&path, "rename a finished file to", error.error))?;
            paths.push(path);
        }
        self.published = true;
        Ok(paths)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published && self.created {
            self.files.clear();
            // Fails if someone else put a file there meanwhile, and then the directory has to stay.
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// Why the content of a file could not be produced.
pub(super) enum WriteError {
    /// Writing failed.
    Io(io::Error),
    /// The source is at fault.
    Source(Problem),
    /// The caller wants no more of it.
    Interrupted,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Io(error)
    }
}

pub(super) fn io_error(path: &Path, doing: &'static str, source: io::Error) -> GgufError {
    GgufError::Io { path: path.to_path_buf(), doing, source }
}
