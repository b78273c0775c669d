//! Checkpoints written byte by byte: good ones are read, each kind of bad one gets its own sentence.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A file with this header and as many data bytes, counting up.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(directory.join(name), content).expect("the temporary directory is writable");
}

fn directory_with(files: &[(&str, Vec<u8>)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        write(directory.path(), name, content);
    }
    directory
}

/// The message for a single bad file.
fn error_of(content: Vec<u8>) -> String {
    let directory = directory_with(&[("model.safetensors", content)]);
    let error = Checkpoint::open(directory.path()).expect_err("the file is bad").to_string();
    assert!(error.contains("model.safetensors"), "{error} does not name the file");
    error
}

fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]}}"#;

#[test]
fn a_file_and_its_directory_are_the_same() {
    let directory = directory_with(&[("model.safetensors", file(TWO, 14))]);
    for path in [directory.path().to_path_buf(), directory.path().join("model.safetensors")] {
        let checkpoint = Checkpoint::open(&path).expect("the file is good");
        assert_eq!(checkpoint.directory(), directory.path());
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
        let a = checkpoint.tensor("a").expect("a exists");
        assert_eq!((a.name, a.dtype, a.shape.as_slice()), ("a", CheckpointDType::BF16, [1, 3].as_slice()));
        assert_eq!(a.bytes, [8, 9, 10, 11, 12, 13]);
        assert!(checkpoint.tensor("c").is_none());
    }
}

#[test]
fn a_forgotten_tensor_reads_the_same() {
    let directory = directory_with(&[("model.safetensors", file(TWO, 14))]);
    let checkpoint = Checkpoint::open(directory.path()).expect("the file is good");
    for (name, range) in [("a", 0..3), ("a", 1..2), ("b", 1..1), ("b", 0..2), ("nowhere", 0..9)] {
        checkpoint.forget(name, range);
    }
    assert_eq!(checkpoint.tensor("a").expect("a exists").bytes, [8, 9, 10, 11, 12, 13]);
    assert_eq!(checkpoint.tensor("b").expect("b exists").bytes, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn reads_widen_exactly() {
    let header = r#"{"h":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"f":{"dtype":"F32","shape":[1],"data_offsets":[6,10]},"z":{"dtype":"BF16","shape":[2],"data_offsets":[10,14]},"i":{"dtype":"I64","shape":[1],"data_offsets":[14,22]}}"#;
    let mut bytes = file(header, 0);
    for bits in [0x3c00u16, 0xc000, 0x0001] {
        bytes.extend(bits.to_le_bytes());
    }
    bytes.extend(0.1f32.to_le_bytes());
    for bits in [0x3f80u16, 0xc040] {
        bytes.extend(bits.to_le_bytes());
    }
    bytes.extend(7i64.to_le_bytes());
    let directory = directory_with(&[("model.safetensors", bytes)]);
    let checkpoint = Checkpoint::open(directory.path()).expect("the file is good");
    let read = |name: &str, range| {
        let mut out = vec![9.0];
        checkpoint.tensor(name).expect("it exists").read_f32(range, &mut out).map(|()| out)
    };
    assert_eq!(read("h", 0..3).expect("F16"), [1.0, -2.0, 5.960_464_5e-8]);
    assert_eq!(read("h", 1..2).expect("F16"), [-2.0]);
    assert_eq!(read("f", 0..1).expect("F32"), [0.1]);
    assert_eq!(read("z", 0..2).expect("BF16"), [1.0, -3.0]);
    let error = read("i", 0..1).expect_err("I64 is unsupported").to_string();
    assert_says(&error, &["model.safetensors", "tensor i ", "I64", "BF16"]);
}

#[test]
fn the_first_value_that_is_not_finite_is_found() {
    let count = 5000;
    for (dtype, size, specials) in [
        ("F32", 4, [vec![0, 0, 0x80, 0x7f], vec![1, 0, 0xc0, 0xff]]),
        ("F16", 2, [vec![0, 0x7c], vec![0, 0xfe]]),
        ("BF16", 2, [vec![0x80, 0x7f], vec![0xc1, 0xff]]),
    ] {
        let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{}]}}}}"#, count * size);
        for (special, expected) in specials.iter().zip(["inf", "NaN"]) {
            for at in [0, 2047, 4999] {
                let mut bytes = file(&header, 0);
                let data = bytes.len();
                bytes.resize(data + count * size, 0x3c);
                let directory = directory_with(&[("model.safetensors", bytes.clone())]);
                let checkpoint = Checkpoint::open(directory.path()).expect("the file is good");
                let mut values = Vec::new();
                let mut read = |checkpoint: &Checkpoint, range| {
                    checkpoint.tensor("w").expect("it exists").read_f32(range, &mut values)
                };
                read(&checkpoint, 0..count).expect("all values are finite");
                bytes[data + at * size..data + (at + 1) * size].copy_from_slice(special);
                let directory = directory_with(&[("model.safetensors", bytes)]);
                let checkpoint = Checkpoint::open(directory.path()).expect("the layout is good");
                for range in [0..count, at..at + 1] {
                    let error = read(&checkpoint, range).expect_err("one value is not");
                    assert_says(&error.to_string(), &["tensor w ", expected, &format!("index {at},")]);
                }
                read(&checkpoint, at + 1..count).expect("those behind it are finite");
            }
        }
    }
}

#[test]
fn headers_that_lie_are_refused() {
    assert_says(&error_of(vec![]), &["0 bytes"]);
    assert_says(&error_of(vec![1, 2, 3]), &["3 bytes"]);
    assert_says(&error_of(u64::MAX.to_le_bytes().to_vec()), &["18446744073709551615"]);
    assert_says(&error_of(50_000_000u64.to_le_bytes().to_vec()), &["50000000", "truncated"]);
    assert_says(&error_of(file("not json", 4)), &["JSON"]);
    assert_says(&error_of(file("[1]", 4)), &["JSON"]);
    assert_says(&error_of(file(&"[".repeat(100_000), 4)), &["JSON"]);
    assert_says(&error_of(file("{}", 0)), &["no tensors"]);
    assert_says(&error_of(file(r#"{"w":{"dtype":"F32"}}"#, 4)), &["shape"]);
    assert_says(&error_of(file(r#"{"w":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}}"#, 4)), &["F7"]);
    assert_says(&error_of(file(r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4)), &["-1"]);
    let mut not_text = file(r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4);
    not_text[10] = 0xff;
    assert_says(&error_of(not_text), &["JSON"]);
}

#[test]
fn layouts_that_lie_are_refused() {
    let one = |dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}}}"#)
    };
    let error = |header: String, data| error_of(file(&header, data));
    assert_says(&error(one("F32", "[2]", 0, 8), 7), &["tensor w", "truncated"]);
    assert_says(&error(one("F32", "[2]", 0, 8), 9), &["end at byte 8", "has 9"]);
    assert_says(&error(one("F32", "[2]", 4, 12), 12), &["gap"]);
    assert_says(&error(one("F32", "[2]", 0, 4), 4), &["needs 8 bytes"]);
    assert_says(&error(one("BF16", "[2]", 0, 8), 8), &["needs 4 bytes"]);
    assert_says(&error(one("F32", "[2]", 8, 0), 8), &["needs 8 bytes"]);
    assert_says(&error(one("F32", "[0,2]", 0, 0), 0), &["no elements"]);
    assert_says(&error(one("F4", "[3]", 0, 2), 2), &["whole bytes"]);
    let huge = "[4294967296,4294967296,4294967296]";
    assert_says(&error(one("F32", huge, 0, 4), 4), &["too large"]);
    assert_says(&error(one("F32", "[1]", 0, u64::MAX), 4), &["truncated"]);
    let overlap = r#"{"v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    assert_says(&error(overlap.to_string(), 12), &["tensor w", "overlaps"]);
    let twice = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    assert_says(&error(twice.to_string(), 8), &["w occurs twice"]);
}

fn shard(tensors: &[&str]) -> Vec<u8> {
    let entries: Vec<String> = (tensors.iter().enumerate())
        .map(|(i, t)| format!(r#""{t}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4))
        .collect();
    file(&format!("{{{}}}", entries.join(",")), 4 * tensors.len())
}

fn index(pairs: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<String> = pairs.iter().map(|(tensor, file)| format!("{tensor:?}:{file:?}")).collect();
    format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{}}}}}"#, entries.join(",")).into_bytes()
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards_form_one_checkpoint() {
    let directory = directory_with(&[
        ("one", shard(&["c", "a"])),
        ("two", shard(&["b"])),
        (INDEX, index(&[("a", "one"), ("b", "two"), ("c", "one")])),
    ]);
    for path in [directory.path().to_path_buf(), directory.path().join(INDEX)] {
        let checkpoint = Checkpoint::open(&path).expect("index and shards agree");
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(checkpoint.tensor("a").expect("a exists").bytes, [4, 5, 6, 7]);
        assert_eq!(checkpoint.tensor("b").expect("b exists").bytes, [0, 1, 2, 3]);
        assert_eq!(checkpoint.directory(), directory.path());
    }
    write(directory.path(), "model.safetensors", shard(&["only"]));
    let checkpoint = Checkpoint::open(directory.path()).expect("the single file is good");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["only"]);
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_refused() {
    let error = |index: Vec<u8>| {
        let directory = directory_with(&[("one", shard(&["a"])), ("two", shard(&["b"])), (INDEX, index)]);
        Checkpoint::open(directory.path()).expect_err("the index is bad").to_string()
    };
    assert_says(&error(index(&[("a", "one"), ("b", "three")])), &[INDEX, "three", "does not exist"]);
    assert_says(&error(index(&[("a", "one"), ("b", "two"), ("c", "two")])), &["tensor c in two"]);
    assert_says(&error(index(&[("a", "one"), ("b", "one")])), &["tensor b in one"]);
    assert_says(&error(index(&[("a", "one"), ("a", "two")])), &["tensor a is listed twice"]);
    assert_says(&error(index(&[])), &["empty"]);
    for file in ["/etc/passwd", "../one", "sub/one", "one/", "./one", "..", "", "a\\\\b", "one/."] {
        assert_says(&error(index(&[("a", file)])), &["plain file names"]);
    }
    assert_says(&error(b"{}".to_vec()), &["weight_map"]);
    assert_says(&error(b"".to_vec()), &["weight_map"]);
    assert_says(&error(br#"{"weight_map":{"a":1}}"#.to_vec()), &["weight_map"]);

    let directory = directory_with(&[
        ("one", shard(&["a", "b"])),
        ("two", shard(&["b"])),
        (INDEX, index(&[("a", "one"), ("b", "two")])),
    ]);
    let error = Checkpoint::open(directory.path()).expect_err("b is in both").to_string();
    assert_says(&error, &["tensor b is in one", "places it in two"]);
    write(directory.path(), "one", shard(&["a", "x"]));
    let error = Checkpoint::open(directory.path()).expect_err("x is not listed").to_string();
    assert_says(&error, &["one holds the tensor x", "does not list"]);
}

#[test]
fn paths_that_are_no_checkpoint_say_what_to_do() {
    let error = |path: &Path| Checkpoint::open(path).expect_err("no checkpoint").to_string();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    assert_says(&error(&path.join("nothing")), &["nothing", "cannot find"]);
    assert_says(&error(path), &["model.safetensors", INDEX, "Hugging Face"]);
    write(path, "pytorch_model.bin", b"x");
    assert_says(&error(path), &["pytorch_model.bin", "pickle"]);
    assert_says(&error(&path.join("pytorch_model.bin")), &["pickle"]);
    write(path, "m.gguf", b"GGUF");
    assert_says(&error(path), &["m.gguf", "llmc import"]);
    assert_says(&error(&path.join("m.gguf")), &["llmc import"]);
    write(path, "blob", b"GGUF....");
    assert_says(&error(&path.join("blob")), &["llmc import"]);
    write(path, "config.json", b"{}");
    assert_says(&error(&path.join("config.json")), &["not a shard index"]);
    write(path, "other.safetensors", shard(&["a"]));
    assert_says(&error(path), &["only other.safetensors"]);
    write(path, INDEX, index(&[("a", "model-00001-of-00002.safetensors")]));
    write(path, "model-00001-of-00002.safetensors", shard(&["a"]));
    assert_says(&error(&path.join("model-00001-of-00002.safetensors")), &["one shard of several"]);
    assert_says(&error(Path::new("/dev/null")), &["not a regular file"]);
}
