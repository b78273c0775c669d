//! An artifact as a whole: written, opened by us and by safetensors, and damaged in every region.

use llmc_artifact::layout::PAGE;
use llmc_artifact::{Artifact, ArtifactWriter, Entry, GenerationDefaults, HostCode, Manifest, TokenizerFacts};
use llmc_ir::dim::{Bindings, Bounds};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Processor;
use llmc_ir::plan::{KvLayout, ModelFacts, PackedWeight, Plan, Program, WeightLayout, Work};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn manifest() -> Manifest {
    let weight = |name: &str, dtype: DType, shape: &[usize], layout, bytes| PackedWeight {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        layout,
        bytes,
    };
    let bounds =
        Bounds { max: Bindings { tokens: 2, samples: 2, sequences: 2, context: 64 }, one_token_per_sequence: false };
    Manifest {
        format_version: 0,
        compiler_version: "0.1.0".to_owned(),
        plan: Plan {
            model: ModelFacts {
                architecture: "ToyForCausalLM".to_owned(),
                dtype: DType::BF16,
                vocab: 8,
                hidden: 4,
                layers: 1,
                max_context: 64,
                max_batch: 2,
                parameters: 32,
            },
            kv: KvLayout { layers: 1, heads: 1, head_dim: 32, dtype: DType::BF16 },
            weights: vec![
                weight("embed \"quoted\"", DType::BF16, &[8, 4], WeightLayout::RowMajor, 64),
                weight("proj", DType::BF16, &[40, 4], WeightLayout::Panels, 64 * 32 * 2),
                weight("norm", DType::F32, &[3], WeightLayout::RowMajor, 12),
            ],
            programs: vec![Program {
                name: "prefill".to_owned(),
                processor: Processor::Cpu,
                bounds,
                arena_bytes: 64,
                functions: Vec::new(),
                calls: Vec::new(),
                work: Work::default(),
                search: None,
            }],
        },
        targets: vec![HostCode {
            name: "x86-64-v3".to_owned(),
            cpu_features: vec!["avx2".to_owned()],
            tensor: "code/x86-64-v3".to_owned(),
            scratch_bytes: 64,
        }],
        cuda: Vec::new(),
        tokenizer: Some(TokenizerFacts { bos_token: Some("<s>".to_owned()), ..TokenizerFacts::default() }),
        generation: GenerationDefaults { temperature: Some(0.7), ..GenerationDefaults::default() },
        tensors: BTreeMap::new(),
    }
}

fn entries(manifest: &Manifest) -> Vec<Entry> {
    let weights = manifest.plan.weights.iter().enumerate().map(|(index, weight)| Entry::weight(index, weight));
    let raw = [("code/x86-64-v3", 5000), ("tokenizer.json", 77), ("ir/prefill", 9)];
    weights.chain(raw.map(|(name, bytes)| Entry::raw(name, bytes))).collect()
}

fn contents(index: usize, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|i| (i as usize * 31 + index * 7 + 1) as u8).collect()
}

fn write(path: &Path, piece: usize) {
    let entries = entries(&manifest());
    let mut writer = ArtifactWriter::create(path, entries.clone(), manifest()).unwrap();
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(writer.current_entry(), Some(entry.name.as_str()));
        for bytes in contents(index, entry.bytes).chunks(piece) {
            writer.write(bytes).unwrap();
        }
        writer.end_entry().unwrap();
    }
    writer.finish().unwrap();
}

fn written() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("toy.llmc");
    write(&path, 1000);
    (directory, path)
}

/// The error of opening or verifying a file with these bytes, if there is one.
fn damage(path: &Path, bytes: &[u8]) -> Option<String> {
    std::fs::write(path, bytes).unwrap();
    match Artifact::open(path) {
        Err(error) => Some(error.to_string()),
        Ok(artifact) => artifact.verify(|_, _| {}).err().map(|error| error.to_string()),
    }
}

#[test]
fn what_is_written_is_read_back() {
    let (_directory, path) = written();
    let artifact = Artifact::open(&path).unwrap();
    let expected = entries(&manifest());
    for (index, entry) in expected.iter().enumerate() {
        let bytes = artifact.tensor(&entry.name).unwrap();
        assert_eq!(bytes, contents(index, entry.bytes));
        assert_eq!(bytes.as_ptr() as u64 % PAGE, 0, "{}", entry.name);
    }
    let weights: Vec<&[u8]> = artifact.weights().collect();
    assert_eq!(weights.len(), 3);
    assert_eq!(weights[2], contents(2, 12));
    assert!(artifact.tensors().map(|(name, _)| name).eq(expected.iter().map(|entry| entry.name.as_str())));
    assert_eq!(artifact.manifest().plan, manifest().plan);
    assert_eq!(artifact.manifest().generation, manifest().generation);
    let mut reports = Vec::new();
    let summary = artifact.verify(|done, total| reports.push((done, total))).unwrap();
    assert_eq!((summary.tensors, summary.bytes), (6, artifact.size_bytes()));
    assert_eq!(reports.last(), Some(&(summary.bytes, summary.bytes)));
}

#[test]
fn any_safetensors_reader_opens_it() {
    let (_directory, path) = written();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let embed = tensors.tensor("weights/0000/embed \"quoted\"").unwrap();
    assert_eq!((embed.dtype(), embed.shape()), (safetensors::Dtype::BF16, &[8, 4][..]));
    assert_eq!(tensors.tensor("weights/0001/proj").unwrap().shape(), [2, 1, 2, 16, 16, 2]);
    assert_eq!(tensors.tensor("tokenizer.json").unwrap().data(), contents(4, 77));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (directory, path) = written();
    let other = directory.path().join("other.llmc");
    write(&other, 7);
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap());
}

#[test]
fn every_flipped_byte_is_found() {
    let (directory, path) = written();
    let good = std::fs::read(&path).unwrap();
    let target = directory.path().join("damaged.llmc");
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for position in (0..header).chain((header..good.len()).step_by(5)) {
        let mut bytes = good.clone();
        bytes[position] ^= 1 << (position % 8);
        let error = damage(&target, &bytes);
        assert!(error.is_some(), "flipping a bit of byte {position} went unnoticed");
    }
}

#[test]
fn damage_to_header_and_code_is_found_on_opening() {
    let (directory, path) = written();
    let good = std::fs::read(&path).unwrap();
    let target = directory.path().join("damaged.llmc");
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let artifact = Artifact::open(&path).unwrap();
    let code = artifact.tensor("code/x86-64-v3").unwrap();
    let code = good.windows(code.len()).position(|window| window == code).unwrap();
    for (position, part) in [(100, "header"), (header - 1, "header"), (code, "code/x86-64-v3"), (code + 4999, "code/")]
    {
        let mut bytes = good.clone();
        bytes[position] ^= 64;
        std::fs::write(&target, &bytes).unwrap();
        let error = Artifact::open(&target).unwrap_err().to_string();
        assert!(error.contains("corrupted") && error.contains(part), "{error}");
    }
}

#[test]
fn truncation_and_appended_bytes_are_found() {
    let (directory, path) = written();
    let good = std::fs::read(&path).unwrap();
    let target = directory.path().join("damaged.llmc");
    for length in [0, 1, 7, 8, 9, 60, 200, 4095, 4096, good.len() / 2, good.len() - 1] {
        let error = damage(&target, &good[..length]).unwrap();
        assert!(length < 60 || error.contains("truncated"), "{length}: {error}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(damage(&target, &longer).unwrap().contains("1 bytes follow"));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let data = [0u8; 16];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 2], &data).unwrap();
    let checkpoint = safetensors::serialize([("a", view)], None).unwrap();
    let error = damage(&path, &checkpoint).unwrap();
    assert!(error.contains("llmc compile") && error.contains("model.safetensors"), "{error}");
    assert!(damage(&path, b"GGUF\x03\0\0\0 and so on").unwrap().contains("llmc import"));
    assert!(damage(&path, b"#!/bin/sh\necho hello\n").unwrap().contains("not a compiled model"));
    let error = Artifact::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("directory"), "{error}");
    std::fs::write(directory.path().join("config.json"), "{}").unwrap();
    assert!(Artifact::open(directory.path()).unwrap_err().to_string().contains("llmc compile"));
    let error = Artifact::open(directory.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("cannot open") && error.contains("none"), "{error}");
}

#[test]
fn the_writer_rejects_what_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("toy.llmc");
    let list = entries(&manifest());
    let fails = |entries: Vec<Entry>| ArtifactWriter::create(&path, entries, manifest()).err().unwrap().to_string();
    assert!(fails(list[1..].to_vec()).contains("no tensor `weights/0000/"));
    assert!(fails(list[..3].to_vec()).contains("code for x86-64-v3"));
    assert!(fails(list[..4].to_vec()).contains("tokenizer"));
    let twice: Vec<Entry> = list.iter().cloned().chain([list[5].clone()]).collect();
    assert!(fails(twice).contains("used twice"));

    let mut decode_only = manifest();
    decode_only.plan.programs[0].bounds.one_token_per_sequence = true;
    let error = ArtifactWriter::create(&path, list.clone(), decode_only).err().unwrap().to_string();
    assert!(error.contains("several tokens of a sequence"), "{error}");

    let mut writer = ArtifactWriter::create(&path, list.clone(), manifest()).unwrap();
    assert!(writer.end_entry().unwrap_err().to_string().contains("only 0 came"));
    assert!(writer.write(&[0; 65]).unwrap_err().to_string().contains("more came"));
    assert!(writer.finish().unwrap_err().to_string().contains("weights/0000"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
}
