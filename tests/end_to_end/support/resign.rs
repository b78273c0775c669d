//! Artifacts whose manifest was changed by someone who knows how the header is hashed.

use serde_json::Value;
use std::path::Path;

const PREFIX: &str = "{\"__metadata__\":{\"llmc.header_blake3\":\"";
const PAGE: usize = 4096;

/// An artifact in pieces.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The header's object.
    header: Value,
    /// The object that the header holds as a string.
    pub manifest: Value,
    /// The tensors.
    data: Vec<u8>,
}

impl Opened {
    /// Takes a good artifact apart.
    pub fn open(path: &Path) -> Opened {
        let file = std::fs::read(path).unwrap();
        let (length, rest) = file.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Value = serde_json::from_slice(header).unwrap();
        let manifest = serde_json::from_str(header["__metadata__"]["llmc.manifest"].as_str().unwrap()).unwrap();
        Opened { header, manifest, data: data.to_vec() }
    }

    /// The file with a header that is valid for the manifest as it is now.
    pub fn sign(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        header["__metadata__"]["llmc.manifest"] = self.manifest.to_string().into();
        header["__metadata__"]["llmc.header_blake3"] = "0".repeat(64).into();
        let mut text = header.to_string();
        assert!(text.starts_with(PREFIX));
        text += &" ".repeat((8 + text.len()).next_multiple_of(PAGE) - 8 - text.len());
        let mut file = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let hash = blake3::hash(&file).to_hex();
        file[8 + PREFIX.len()..][..64].copy_from_slice(hash.as_bytes());
        file.extend_from_slice(&self.data);
        file
    }
}

/// Calls `change` with the JSON pointer of every number below `value`; of lists, the first and the last entry are visited.
pub fn for_each_number(value: &Value, pointer: &str, change: &mut impl FnMut(&str)) {
    match value {
        Value::Number(_) => change(pointer),
        Value::Array(list) => {
            let ends = list.iter().enumerate().filter(|(index, _)| *index == 0 || *index + 1 == list.len());
            ends.for_each(|(index, entry)| for_each_number(entry, &format!("{pointer}/{index}"), change));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, entry)| for_each_number(entry, &format!("{pointer}/{name}"), change));
        }
        _ => {}
    }
}
