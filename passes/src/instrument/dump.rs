//! Dumps: one text file per pass, so that a directory listing is the history of a model.

use super::{Instrument, Moment};
use crate::pass::State;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes `00-input.tir`, then `NN-pass.tir` after each pass, into one directory. Files of earlier runs with such
/// names are removed first.
#[derive(Clone, Debug)]
pub struct Dump {
    directory: PathBuf,
}

impl Dump {
    /// The directory is made when the run starts.
    pub fn new(directory: &Path) -> Dump {
        Dump { directory: directory.to_path_buf() }
    }
}

impl Instrument for Dump {
    fn name(&self) -> &'static str {
        "dump"
    }

    fn observe(&mut self, moment: Moment<'_>, state: &State) -> Result<(), String> {
        let failed = |path: &Path, error| format!("cannot write {}: {error}; give another directory", path.display());
        let name = match moment {
            Moment::Start => {
                prepare(&self.directory).map_err(|error| failed(&self.directory, error))?;
                "00-input.tir".to_owned()
            }
            Moment::After { number, pass } => format!("{number:02}-{}.tir", pass.name),
        };
        let path = self.directory.join(name);
        fs::write(&path, state.text()).map_err(|error| failed(&path, error))
    }
}

fn prepare(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbered = name.split('-').next().is_some_and(|n| n.len() >= 2 && n.bytes().all(|b| b.is_ascii_digit()));
        if numbered && name.ends_with(".tir") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
