//! The GGUF container: header, metadata and tensor table, read as if someone hostile had written it.
//!
//! Written here because the crates for it either bring a whole inference library or trust the counts in the file.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Versions 2 and 3, little-endian.

use std::collections::BTreeSet;

use super::error::{Problem, malformed, unsupported};
use super::metadata::{Metadata, Scalar, Value};
use super::quant::TensorType;

const MAGIC: &[u8] = b"GGUF";
/// Where the file does not say otherwise, tensor data is aligned to this many bytes.
const DEFAULT_ALIGNMENT: usize = 32;
/// ggml has tensors of at most this many dimensions.
const MAX_DIMENSIONS: u32 = 4;
/// Arrays of arrays are walked to this depth, so that a file cannot exhaust the stack.
const MAX_NESTING: u32 = 4;

/// A parsed file; everything is borrowed from its bytes.
#[derive(Debug)]
pub(super) struct Gguf<'a> {
    pub(super) metadata: Metadata<'a>,
    /// In the order of the file; names are unique, data ranges lie in the file and do not overlap.
    pub(super) tensors: Vec<Tensor<'a>>,
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) kind: TensorType,
    /// Outermost first, unlike in the file; no dimension is zero.
    pub(super) shape: Vec<usize>,
    pub(super) bytes: &'a [u8],
}

impl Tensor<'_> {
    /// Elements of a row, the innermost dimension; always whole blocks of `kind`.
    pub(super) fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Parses a whole file.
pub(super) fn parse(file: &[u8]) -> Result<Gguf<'_>, Problem> {
    let mut cursor = Cursor { file, at: 0 };
    if cursor.take(MAGIC.len(), "the magic number")? != MAGIC {
        return malformed("it does not begin with the letters GGUF");
    }
    match cursor.u32("the version")? {
        2 | 3 => {}
        version if version.swap_bytes() <= 3 => {
            return unsupported("it is big-endian", "convert it with gguf_convert_endian.py of llama.cpp");
        }
        version => return unsupported(format!("it has GGUF version {version}"), "only versions 2 and 3 are known"),
    }
    let tensor_count = cursor.u64("the tensor count")?;
    let pair_count = cursor.u64("the metadata count")?;
    // Nothing is allocated by these counts: each entry has to be in the file, so a lie ends at the end of the file.
    let mut metadata = Metadata::default();
    for _ in 0..pair_count {
        let key = cursor.text("a metadata key")?;
        let kind = cursor.u32(key)?;
        metadata.insert(key, cursor.value(kind, key, 0)?)?;
    }
    let mut table = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..tensor_count {
        let row = cursor.table_row()?;
        if !names.insert(row.name) {
            return malformed(format!("the tensor {} occurs twice", row.name));
        }
        table.push(row);
    }
    let alignment = metadata.unsigned("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() {
        return malformed(format!("general.alignment should be a power of two, but is {alignment}"));
    }
    let data = match cursor.at.checked_next_multiple_of(alignment).and_then(|start| file.get(start..)) {
        Some(data) => data,
        // A file without tensors may end right after its tables.
        None if table.is_empty() => &[],
        None => return malformed("it ends before the tensor data (truncated?)"),
    };
    check_overlap(&table)?;
    let tensors = table.into_iter().map(|row| row.locate(data, alignment)).collect::<Result<_, _>>()?;
    Ok(Gguf { metadata, tensors })
}

/// A row of the tensor table, before its data is looked up.
struct Row<'a> {
    name: &'a str,
    kind: TensorType,
    shape: Vec<usize>,
    offset: u64,
    size: usize,
}

impl<'a> Row<'a> {
    fn locate(self, data: &'a [u8], alignment: usize) -> Result<Tensor<'a>, Problem> {
        let Row { name, kind, shape, offset, size } = self;
        if !offset.is_multiple_of(alignment as u64) {
            return malformed(format!("the offset {offset} of tensor {name} is not a multiple of {alignment}"));
        }
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(size)?));
        match range.and_then(|range| data.get(range)) {
            Some(bytes) => Ok(Tensor { name, kind, shape, bytes }),
            None => malformed(format!(
                "tensor {name} needs {size} bytes from offset {offset}, but there are {} bytes of data (truncated?)",
                data.len()
            )),
        }
    }
}

fn check_overlap(table: &[Row<'_>]) -> Result<(), Problem> {
    let mut order: Vec<&Row<'_>> = table.iter().collect();
    order.sort_by_key(|row| (row.offset, row.name));
    for pair in order.windows(2) {
        if pair[0].offset.saturating_add(pair[0].size as u64) > pair[1].offset {
            return malformed(format!("the tensors {} and {} overlap", pair[0].name, pair[1].name));
        }
    }
    Ok(())
}

/// A position in the file; every read is bounds-checked and says what it was for.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, size: usize, what: &str) -> Result<&'a [u8], Problem> {
        match self.file[self.at..].get(..size) {
            Some(bytes) => {
                self.at += size;
                Ok(bytes)
            }
            None => malformed(format!("it ends within {what} (truncated?)")),
        }
    }

    fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        Ok(self.take(4, what)?.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Problem> {
        Ok(u64::from(self.u32(what)?) | u64::from(self.u32(what)?) << 32)
    }

    /// A count of bytes or elements; one that does not fit into memory cannot fit into the file either.
    fn length(&mut self, what: &str) -> Result<usize, Problem> {
        Ok(usize::try_from(self.u64(what)?).unwrap_or(usize::MAX))
    }

    fn text(&mut self, what: &str) -> Result<&'a str, Problem> {
        let length = self.length(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).or_else(|_| malformed(format!("a string in {what} is not UTF-8")))
    }

    fn value(&mut self, kind: u32, key: &str, depth: u32) -> Result<Value<'a>, Problem> {
        const TEXT: u32 = 8;
        const ARRAY: u32 = 9;
        match kind {
            TEXT => Ok(Value::Text(self.text(key)?)),
            ARRAY if depth == MAX_NESTING => malformed(format!("the arrays of {key} are nested too deeply")),
            ARRAY => {
                let kind = self.u32(key)?;
                let count = self.length(key)?;
                match kind {
                    TEXT => Ok(Value::Texts((0..count).map(|_| self.text(key)).collect::<Result<_, _>>()?)),
                    ARRAY => {
                        for _ in 0..count {
                            self.value(ARRAY, key, depth + 1)?;
                        }
                        Ok(Value::Nested)
                    }
                    kind => {
                        let scalar = scalar(kind, key)?;
                        Ok(Value::Numbers(scalar, self.take(count.saturating_mul(scalar.size()), key)?))
                    }
                }
            }
            kind => {
                let scalar = scalar(kind, key)?;
                scalar.decode(self.take(scalar.size(), key)?)
            }
        }
    }

    fn table_row(&mut self) -> Result<Row<'a>, Problem> {
        let name = self.text("a tensor name")?;
        let dimensions = self.u32(name)?;
        if dimensions > MAX_DIMENSIONS {
            return malformed(format!("tensor {name} has {dimensions} dimensions, more than {MAX_DIMENSIONS}"));
        }
        let mut shape = (0..dimensions).map(|_| self.length(name)).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        let kind = TensorType::from_code(self.u32(name)?).map_err(|kind| {
            let fix = format!("use a file whose tensors are of the types {}", TensorType::list());
            Problem::Unsupported(format!("tensor {name} has the type {kind}, which cannot be read"), fix)
        })?;
        let offset = self.u64(name)?;
        let columns = shape.last().copied().unwrap_or(1);
        if shape.contains(&0) || !columns.is_multiple_of(kind.block_elements()) {
            let block = kind.block_elements();
            return malformed(format!(
                "tensor {name} has shape {shape:?}, but {kind} needs rows of a multiple of {block}"
            ));
        }
        let blocks = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let size = blocks.and_then(|elements| (elements / kind.block_elements()).checked_mul(kind.block_bytes()));
        match size {
            Some(size) => Ok(Row { name, kind, shape, offset, size }),
            None => malformed(format!("tensor {name} has the shape {shape:?}, too large for this machine to address")),
        }
    }
}

fn scalar(kind: u32, key: &str) -> Result<Scalar, Problem> {
    Ok(match kind {
        0 => Scalar::U8,
        1 => Scalar::I8,
        2 => Scalar::U16,
        3 => Scalar::I16,
        4 => Scalar::U32,
        5 => Scalar::I32,
        6 => Scalar::F32,
        7 => Scalar::Bool,
        10 => Scalar::U64,
        11 => Scalar::I64,
        12 => Scalar::F64,
        kind => return malformed(format!("the metadata key {key} has the unknown value type {kind}")),
    })
}
