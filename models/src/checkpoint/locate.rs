//! From what the user named to the file that has to be read.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CheckpointError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What a path turned out to be.
pub(super) enum Source {
    /// One safetensors file.
    Single(PathBuf),
    /// A shard index.
    Sharded(PathBuf),
}

/// Finds the checkpoint that `path` means.
pub(super) fn locate(path: &Path) -> Result<Source, CheckpointError> {
    let metadata =
        fs::metadata(path).map_err(|source| CheckpointError::Io { path: path.to_path_buf(), doing: "find", source })?;
    if metadata.is_dir() {
        return locate_in_directory(path);
    }
    if !metadata.is_file() {
        return Err(CheckpointError::NotAFile { path: path.to_path_buf() });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.ends_with(".index.json") {
        return Ok(Source::Sharded(path.to_path_buf()));
    }
    let reject = |problem: String, fix: &str| {
        Err(CheckpointError::NotACheckpoint { path: path.to_path_buf(), problem, fix: fix.to_string() })
    };
    if name.ends_with(".gguf") || starts_with_gguf_magic(path) {
        return reject("this is a GGUF file".into(), "convert it with `llmc import MODEL.gguf OUTDIR` first");
    }
    if name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") {
        return reject("this is a PyTorch pickle file".into(), PICKLE_FIX);
    }
    if name.ends_with(".json") {
        return reject(
            "this JSON file is not a shard index".into(),
            "give the model's directory, its .safetensors file or its .safetensors.index.json",
        );
    }
    if is_part_of_several(&name) && parent(path).join(INDEX).is_file() {
        return reject(format!("this is one shard of several, listed in {INDEX}"), "give that index or the directory");
    }
    Ok(Source::Single(path.to_path_buf()))
}

/// The directory a file is in; `.` for a bare file name.
pub(super) fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

const PICKLE_FIX: &str = "get the model's safetensors version, or convert it (transformers: save_pretrained)";

fn locate_in_directory(path: &Path) -> Result<Source, CheckpointError> {
    let single = path.join(SINGLE);
    if single.is_file() {
        return Ok(Source::Single(single));
    }
    let index = path.join(INDEX);
    if index.is_file() {
        return Ok(Source::Sharded(index));
    }
    let names = file_names(path)?;
    let ending = |suffix: &str| names.iter().find(|name| name.ends_with(suffix));
    let (problem, fix) = if let Some(name) = ending(".safetensors") {
        (format!("neither {SINGLE} nor {INDEX} is in this directory, only {name}"), "name that file itself".to_string())
    } else if let Some(name) = ending(".gguf") {
        (
            format!("neither {SINGLE} nor {INDEX} is in this directory, but the GGUF file {name} is"),
            format!("convert it with `llmc import {} OUTDIR` first", path.join(name).display()),
        )
    } else if let Some(name) = ending(".bin").or_else(|| ending(".pth")).or_else(|| ending(".pt")) {
        (
            format!("neither {SINGLE} nor {INDEX} is in this directory, but the PyTorch pickle {name} is"),
            PICKLE_FIX.to_string(),
        )
    } else {
        (
            format!("neither {SINGLE} nor {INDEX} is in this directory"),
            "give the directory of a downloaded Hugging Face model".to_string(),
        )
    };
    Err(CheckpointError::NotACheckpoint { path: path.to_path_buf(), problem, fix })
}

/// Names of the directory's entries, sorted so that messages do not depend on the file system's order.
fn file_names(directory: &Path) -> Result<Vec<String>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: directory.to_path_buf(), doing: "list", source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn starts_with_gguf_magic(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
}

/// Whether a name ends like `-00001-of-00003.safetensors`, and not `-of-00001`.
fn is_part_of_several(name: &str) -> bool {
    let Some((part, total)) = name.strip_suffix(".safetensors").and_then(|stem| stem.rsplit_once("-of-")) else {
        return false;
    };
    let part = part.rsplit('-').next().unwrap_or_default();
    part.parse::<u32>().is_ok() && total.parse::<u32>().is_ok_and(|total| total > 1)
}
