//! Artifacts that are damaged, hostile or for another CPU: one clear error each, and never a crash.

use super::support::binaries::{compile, fails, fails_saying, ids, json, llmc, llmrt, succeeds};
use super::support::fake;
use super::support::models::{artifact, tiny};
use super::support::resign::{Opened, for_each_number};
use llmc_artifact::Artifact;
use llmrt::device::DeviceChoice;
use llmrt::executor::{Executor, ExecutorOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A tokenizer of single letters for the tiny checkpoints.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
"pre_tokenizer": null, "post_processor": null, "decoder": null,
"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}}"#;

/// A good artifact with a tokenizer, and a place for damaged ones.
struct Place {
    directory: tempfile::TempDir,
    good: &'static [u8],
}

fn place() -> Place {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("good.llmc");
    let good = GOOD.get_or_init(|| {
        let checkpoint = directory.path().join("model");
        std::fs::create_dir(&checkpoint).unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(tiny("llama").join(name), checkpoint.join(name)).unwrap();
        }
        std::fs::write(checkpoint.join("tokenizer.json"), TOKENIZER).unwrap();
        succeeds(&mut compile(&checkpoint, &path));
        std::fs::read(&path).unwrap()
    });
    std::fs::write(&path, good).unwrap();
    Place { directory, good }
}

impl Place {
    /// Writes a damaged artifact.
    fn damaged(&self, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join("damaged.llmc");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The good artifact with a bit of a tensor flipped.
    fn flipped(&self, tensor: &str) -> PathBuf {
        let artifact = Artifact::open(self.directory.path().join("good.llmc")).unwrap();
        let bytes = artifact.tensor(tensor).unwrap();
        let at = self.good.windows(bytes.len()).position(|window| window == bytes).unwrap() + bytes.len() / 2;
        let mut damaged = self.good.to_vec();
        damaged[at] ^= 0x10;
        self.damaged(&damaged)
    }
}

/// Every command refuses the artifact and names it.
#[track_caller]
fn refused(path: &Path, parts: &[&str]) {
    let parts = [&[path.file_name().unwrap().to_str().unwrap()], parts].concat();
    fails_saying(llmrt().arg("run").arg(path).args(["--prompt-ids", "1"]), &parts);
    fails_saying(llmrt().arg("verify").arg(path), &parts);
    fails_saying(llmrt().arg("bench").arg(path).args(["-p", "1", "-n", "1"]), &parts);
    fails_saying(llmc().arg("inspect").arg(path), &parts);
}

#[test]
fn artifacts_that_are_cut_or_continued() {
    let place = place();
    let good = place.good;
    refused(&place.damaged(b""), &["empty"]);
    refused(&place.damaged(&good[..7]), &["7 bytes"]);
    for length in [8, 64, 4096, good.len() / 2, good.len() - 4096, good.len() - 1] {
        refused(&place.damaged(&good[..length]), &[]);
    }
    refused(&place.damaged(&good[..good.len() - 1]), &["truncated", &good.len().to_string(), "recompile"]);
    refused(&place.damaged(&[good, b"!"].concat()), &["1 bytes follow"]);
}

#[test]
fn flipped_bits_anywhere_in_the_header() {
    let place = place();
    let header = 8 + u64::from_le_bytes(*place.good.first_chunk().unwrap()) as usize;
    for (number, at) in (0..header).step_by(61).enumerate() {
        let mut damaged = place.good.to_vec();
        damaged[at] ^= 1 << (number % 8);
        let error = Artifact::open(place.damaged(&damaged)).unwrap_err().to_string();
        assert!(error.contains("damaged.llmc"), "byte {at}: {error}");
    }
    for at in [0, 3, 6, 7, 8, 20, 50, 130, header / 2, header - 1] {
        let mut damaged = place.good.to_vec();
        damaged[at] ^= 0x40;
        refused(&place.damaged(&damaged), &[]);
    }
}

#[test]
fn flipped_bits_in_code_tokenizer_and_weights() {
    let place = place();
    let artifact = Artifact::open(place.directory.path().join("good.llmc")).unwrap();
    let code = artifact.manifest().targets[0].tensor.clone();
    refused(&place.flipped(&code), &["corrupted", &code, "recompile"]);
    // A load does not read the weights, but verifying does.
    let path = place.flipped("weights/0000/model.embed_tokens.weight");
    fails_saying(llmrt().arg("verify").arg(&path), &["corrupted", "weights/0000/model.embed_tokens.weight"]);
    succeeds(llmrt().arg("run").arg(&path).args(["--prompt-ids", "1", "-n", "2"]));
    let path = place.flipped("tokenizer.json");
    fails_saying(llmrt().arg("run").arg(&path).args(["-p", "abc"]), &["corrupted", "tokenizer.json"]);
    fails_saying(llmrt().arg("verify").arg(&path), &["corrupted", "tokenizer.json"]);
    assert!(succeeds(llmrt().arg("verify").arg(place.directory.path().join("good.llmc"))).contains("intact"));
}

/// Somebody who hashes the header anew can state other numbers. Loading survives all of them; that the code is not meant
/// for them is beyond checking, so nothing is run.
#[test]
fn no_number_in_a_manifest_makes_loading_crash() {
    let place = place();
    let opened = Opened::open(&place.directory.path().join("good.llmc"));
    let load = |bytes: Vec<u8>| load(&place.damaged(&bytes), DeviceChoice::Host);
    assert!(load(opened.sign()).is_ok(), "signing itself is right");
    let (mut tried, mut refused) = (0, 0);
    for_each_number(&opened.manifest, "", &mut |pointer| {
        for value in [json!(0), json!(-1), json!(0.5), json!(1u64 << 31), json!(1u64 << 62), json!(u64::MAX)] {
            let mut changed = opened.clone();
            *changed.manifest.pointer_mut(pointer).unwrap() = value;
            refused += usize::from(load(changed.sign()).is_err());
            tried += 1;
        }
    });
    assert!(tried > 200 && refused > tried / 2, "{refused} of {tried}");
}

/// The same for code that runs on a GPU.
#[test]
fn no_number_in_code_for_gpus_makes_loading_crash() {
    let directory = tempfile::tempdir().unwrap();
    let opened = Opened::open(&artifact(&tiny("llama"), &["--dtype", "f32", "--target", "cuda:sm_80"]));
    fake::load();
    let path = directory.path().join("changed.llmc");
    let load = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        load(&path, DeviceChoice::Cuda(0))
    };
    assert_eq!(load(opened.sign()), Ok(()));
    let (mut tried, mut refused) = (0, 0);
    let mut change = |pointer: &str| {
        for value in [json!(0), json!(1u64 << 31), json!(u64::MAX)] {
            let mut changed = opened.clone();
            *changed.manifest.pointer_mut(pointer).unwrap() = value;
            refused += usize::from(load(changed.sign()).is_err());
            tried += 1;
        }
    };
    ["/cuda/0/compute_capability", "/cuda/0/code/workspace_bytes"].into_iter().for_each(&mut change);
    for program in ["/cuda/0/code/programs/0", "/cuda/0/code/programs/4"] {
        for_each_number(opened.manifest.pointer(program).unwrap(), program, &mut change);
    }
    assert!(tried > 200 && refused > tried * 3 / 4, "{refused} of {tried}");
}

#[test]
fn code_for_gpus_that_contradicts_itself_or_the_gpu() {
    let directory = tempfile::tempdir().unwrap();
    let opened = Opened::open(&artifact(&tiny("llama"), &["--dtype", "f32", "--target", "cuda:sm_80"]));
    let kernel = "/cuda/0/code/programs/0/kernels/attend/0";
    let changed = |pointer: &str, value: Value, parts: &[&str]| {
        let path = directory.path().join("changed.llmc");
        let mut changed = opened.clone();
        *changed.manifest.pointer_mut(pointer).unwrap() = value;
        std::fs::write(&path, changed.sign()).unwrap();
        let mut command = llmrt();
        command.arg("run").arg(path).args(["--prompt-ids", "1,2", "--device", "cuda:0"]);
        fails_saying(fake::with_gpu(&mut command, ""), parts);
    };
    changed("/cuda/0/tensor", json!("ir/decode"), &["code for cuda:sm_80 should be the tensor"]);
    changed("/cuda/0/code/programs", json!([]), &["has 0 programs"]);
    changed("/cuda/0/code/programs/0/kernels", json!({}), &["nothing is launched for"]);
    changed(&format!("{kernel}/symbol"), json!("none"), &["no kernel `none`", "CUDA_ERROR_NOT_FOUND"]);
    changed(&format!("{kernel}/symbol"), json!("a b"), &["not the name of a function"]);
    changed(&format!("{kernel}/grid/0/per"), json!(0), &["grid of no size"]);
    changed(&format!("{kernel}/shared_bytes"), json!(200 << 10), &["204800 bytes of shared memory", "166912"]);
}

fn load(path: &Path, device: DeviceChoice) -> Result<(), String> {
    let artifact = Arc::new(Artifact::open(path).map_err(|error| error.to_string())?);
    let blocks = artifact.manifest().plan.model.max_context.div_ceil(32);
    let options = ExecutorOptions { device, threads: Some(1), kv_blocks: Some(blocks), ..ExecutorOptions::default() };
    Executor::new(artifact, options).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn manifests_that_contradict_themselves() {
    let place = place();
    let opened = Opened::open(&place.directory.path().join("good.llmc"));
    let with = |pointer: &str, value: Value| {
        let mut changed = opened.clone();
        *changed.manifest.pointer_mut(pointer).unwrap() = value;
        place.damaged(&changed.sign())
    };
    refused(&with("/format_version", json!(99)), &["format version 99", "recompile"]);
    refused(&with("/plan/model/vocab", json!(0)), &["vocab is 0"]);
    refused(&with("/plan/weights/0/bytes", json!(5)), &["weights/0000", "the plan says 5"]);
    refused(&with("/plan/programs/0/calls/0/function", json!(9)), &["function 9"]);
    refused(&with("/plan/programs/0/arena_bytes", json!(64)), &["outside of its 64 bytes"]);
    refused(&with("/targets/0/tensor", json!("tokenizer.json")), &["tokenizer.json"]);
    refused(&with("/tokenizer", json!(null)), &["tokenizer"]);
    refused(&with("/plan/programs", json!([])), &["no program"]);
    let renamed = with("/plan/programs/0/name", json!("de\u{0}code"));
    fails_saying(llmrt().arg("run").arg(&renamed).args(["--prompt-ids", "1"]), &["cannot load the code"]);
    let path = with("/targets", json!([]));
    fails_saying(
        llmrt().arg("run").arg(&path).args(["--prompt-ids", "1"]),
        &["is for a cpu, which there is no code for"],
    );
}

#[test]
fn code_for_a_cpu_that_this_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.llmc");
    // No CPU is both of these.
    let others = ["graniterapids", "znver5"].map(|target| {
        succeeds(compile(tiny("llama"), &path).args(["--max-batch", "1", "--target", target]));
        let output = llmrt().arg("run").arg(&path).args(["--prompt-ids", "1", "-n", "1"]).output().unwrap();
        (output.status.success(), target)
    });
    let other = others.iter().find(|(runs, _)| !runs).expect("a CPU is at most one of them").1;
    succeeds(compile(tiny("llama"), &path).args(["--max-batch", "1", "--target", other]));
    fails_saying(
        llmrt().arg("run").arg(&path).args(["--prompt-ids", "1"]),
        &["other.llmc", "runs on this CPU", &format!("{other} needs "), "llmc compile --target x86-64"],
    );
    // Beside code that every CPU runs it does no harm.
    succeeds(compile(tiny("llama"), &path).args(["--max-batch", "1", "--target", &format!("{other},x86-64")]));
    let run = json(llmrt().arg("run").arg(&path).args(["--prompt-ids", "1", "-n", "1"]));
    assert_eq!(run["target"], "x86-64");
}

#[test]
fn what_is_no_artifact_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fails_saying(llmrt().args(["run", "/no/such/file", "-p", "x"]), &["/no/such/file", "check the path"]);
    fails_saying(llmrt().args(["run", "/dev/null", "-p", "x"]), &["/dev/null"]);
    fails_saying(llmrt().arg("run").arg(directory.path()).args(["-p", "x"]), &["directory"]);
    fails_saying(llmrt().arg("run").arg(tiny("llama")).args(["-p", "x"]), &["checkpoint", "llmc compile"]);
    let weights = tiny("llama").join("model.safetensors");
    fails_saying(llmrt().arg("run").arg(weights).args(["-p", "x"]), &["checkpoint", "llmc compile"]);
    std::fs::write(&path, b"GGUF, or something like it").unwrap();
    fails_saying(llmrt().arg("run").arg(&path).args(["-p", "x"]), &["GGUF", "llmc import"]);
    for bytes in [&b"text"[..], b"a text of more than eight bytes", &[0; 64], &[0xff; 64]] {
        std::fs::write(&path, bytes).unwrap();
        assert!(fails(llmrt().arg("run").arg(&path).args(["-p", "x"])).contains("not a compiled model"));
    }
}

#[test]
fn prompts_that_do_not_fit() {
    let artifact = artifact(&tiny("llama"), &["--dtype", "f32"]);
    let run = |arguments: &[&str]| {
        let mut command = llmrt();
        command.arg("run").arg(&artifact).args(arguments);
        command
    };
    fails_saying(&mut run(&["--prompt-ids", "1", "-n", "0"]), &["-n is 0", "at least 1"]);
    fails_saying(&mut run(&["--prompt-ids", ""]), &["prompt is empty"]);
    fails_saying(&mut run(&["--prompt-ids", "384"]), &["token 384", "0..384"]);
    fails_saying(&mut run(&["--prompt-ids", "1,b"]), &["`b`"]);
    fails_saying(&mut run(&["-p", "text"]), &["needs a tokenizer", "--prompt-ids"]);
    fails_saying(&mut run(&["--prompt-ids", "1", "--threads", "100000"]), &["100000 threads", "1024"]);
    let long = vec!["1"; 513].join(",");
    fails_saying(&mut run(&["--prompt-ids", &long]), &["513 tokens", "512"]);
    assert_eq!(ids(&json(&mut run(&["--prompt-ids", "0,383", "-n", "2"]))["prompt_ids"]), [0, 383]);
}
