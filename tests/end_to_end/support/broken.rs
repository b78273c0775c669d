//! Checkpoints with something wrong, made from a good one.

use super::models::tiny;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A single-file checkpoint in pieces.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The header: tensors by name.
    pub header: Value,
    /// What follows it.
    pub data: Vec<u8>,
    /// The object of config.json.
    pub config: Value,
}

impl Broken {
    /// The tiny Llama, still whole.
    pub fn new() -> Broken {
        let directory = tiny("llama");
        let file = std::fs::read(directory.join("model.safetensors")).unwrap();
        let (length, rest) = file.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let config = std::fs::read(directory.join("config.json")).unwrap();
        Broken {
            header: serde_json::from_slice(header).unwrap(),
            data: data.to_vec(),
            config: serde_json::from_slice(&config).unwrap(),
        }
    }

    /// The bytes of a tensor.
    pub fn tensor(&mut self, name: &str) -> &mut [u8] {
        let offset = |index: usize| self.header[name]["data_offsets"][index].as_u64().unwrap() as usize;
        let range = offset(0)..offset(1);
        &mut self.data[range]
    }

    /// Removes a tensor and its bytes.
    pub fn remove(&mut self, name: &str) {
        let tensors = self.header.as_object_mut().unwrap();
        let gone = tensors.remove(name).unwrap();
        let (start, end) = (gone["data_offsets"][0].as_u64().unwrap(), gone["data_offsets"][1].as_u64().unwrap());
        self.data.drain(start as usize..end as usize);
        for info in tensors.values_mut().filter(|info| info["data_offsets"][0].as_u64() >= Some(end)) {
            let moved = |index: usize| info["data_offsets"][index].as_u64().unwrap() - (end - start);
            info["data_offsets"] = json!([moved(0), moved(1)]);
        }
    }

    /// Adds a tensor at the end.
    pub fn add(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        self.header[name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, self.data.len()]});
    }

    /// model.safetensors.
    pub fn file(&self) -> Vec<u8> {
        let header = self.header.to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &self.data].concat()
    }

    /// Writes the checkpoint into a directory below `parent`.
    pub fn write(&self, parent: &Path) -> PathBuf {
        write(parent, &self.file(), self.config.to_string().as_bytes())
    }
}

/// Writes the two files of a checkpoint into a directory below `parent`.
pub fn write(parent: &Path, weights: &[u8], config: &[u8]) -> PathBuf {
    let directory = parent.join("model");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("model.safetensors"), weights).unwrap();
    std::fs::write(directory.join("config.json"), config).unwrap();
    directory
}
