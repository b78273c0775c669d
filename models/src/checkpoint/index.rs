//! The shard index (`model.safetensors.index.json`): which file holds which tensor, and that both agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::CheckpointError;

/// File name to the tensors that the index places in it.
pub(super) type ShardMap = BTreeMap<String, BTreeSet<String>>;

/// Indexes above this many bytes are refused; real ones stay under a few MB.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// Reads an index and checks that each shard is a plain file name.
pub(super) fn read(path: &Path) -> Result<ShardMap, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.to_path_buf(), doing: "read", source };
    let size = path.metadata().map_err(io)?.len();
    if size > MAX_INDEX_BYTES {
        return Err(invalid(path, format!("it has {size} bytes, and at most {MAX_INDEX_BYTES} are allowed")));
    }
    let text = std::fs::read(path).map_err(io)?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| invalid(path, format!("an object with a \"weight_map\" is expected ({e})")))?;
    let mut shards = ShardMap::new();
    for (tensor, file) in index.weight_map.0 {
        if !is_plain_file_name(&file) {
            let problem =
                format!("tensor {tensor} is placed in {file:?}, and shards must be plain file names beside the index");
            return Err(invalid(path, problem));
        }
        shards.entry(file).or_default().insert(tensor);
    }
    if shards.is_empty() {
        return Err(invalid(path, "its \"weight_map\" is empty".to_string()));
    }
    Ok(shards)
}

/// Checks that a shard holds exactly the tensors that the index places in it.
pub(super) fn check_shard(
    index: &Path,
    file: &str,
    shards: &ShardMap,
    expected: &BTreeSet<String>,
    held: &BTreeSet<&str>,
) -> Result<(), CheckpointError> {
    if let Some(missing) = expected.iter().find(|name| !held.contains(name.as_str())) {
        return Err(invalid(index, format!("it places tensor {missing} in {file}, which does not hold it")));
    }
    if let Some(&extra) = held.iter().find(|&&name| !expected.contains(name)) {
        let elsewhere = shards.iter().find(|(_, names)| names.contains(extra));
        return Err(invalid(
            index,
            match elsewhere {
                Some((other, _)) => format!("tensor {extra} is in {file} although the index places it in {other}"),
                None => format!("{file} holds the tensor {extra}, which the index does not list"),
            },
        ));
    }
    Ok(())
}

fn invalid(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::Index { path: path.to_path_buf(), problem }
}

fn is_plain_file_name(file: &str) -> bool {
    let mut components = Path::new(file).components();
    matches!(components.next(), Some(Component::Normal(name)) if name == file)
        && components.next().is_none()
        && !file.contains(['\\', '\0'])
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Pairs of tensor and file; a tensor listed twice is an error.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightMap, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut files = BTreeMap::new();
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if files.contains_key(&tensor) {
                return Err(A::Error::custom(format!("tensor {tensor} is listed twice")));
            }
            files.insert(tensor, file);
        }
        Ok(WeightMap(files))
    }
}
