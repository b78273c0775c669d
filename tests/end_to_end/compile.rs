//! The compiler's flags: what comes out depends on nothing else, and every artifact says the same.

use super::support::binaries::{compile, fails_saying, id_list, ids, json, llmc, llmrt, succeeds, text};
use super::support::golden::{assert_continues, of_tiny};
use super::support::models::{TINY, artifact, tiny};
use llmc_passes::eqsat::rule::Family;
use llmc_passes::pass::Necessity;
use llmc_passes::pipeline::pipeline;
use llmrt::device::host::cpu;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Makes fewer programs, which is faster.
const ONE_SEQUENCE: [&str; 2] = ["--max-batch", "1"];

/// What an artifact generates from the golden prompts, which must be the golden tokens.
#[track_caller]
fn assert_golden(what: &str, artifact: &Path, model: &str, margin: f64) {
    for prompt in of_tiny(model) {
        let count = prompt.greedy.len().to_string();
        let mut command = llmrt();
        command.arg("run").arg(artifact).args(["--prompt-ids", &id_list(&prompt.ids), "--ignore-eos", "-n", &count]);
        assert_continues(what, &ids(&json(&mut command)["ids"]), &prompt, margin);
    }
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let out = |name: &str| directory.path().join(name);
    let whole = tiny("llama");
    let paths = [whole.clone(), whole.join("model.safetensors"), whole.join("../llama/")];
    let outputs: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| {
            succeeds(compile(path, out("x.llmc")).args(ONE_SEQUENCE));
            fs::read(out("x.llmc")).unwrap()
        })
        .collect();
    assert!(outputs.iter().all(|output| *output == outputs[0]));
    let sharded = tiny("qwen2");
    succeeds(compile(&sharded, out("a.llmc")).args(ONE_SEQUENCE));
    succeeds(compile(sharded.join("model.safetensors.index.json"), out("b.llmc")).args(ONE_SEQUENCE));
    assert!(fs::read(out("a.llmc")).unwrap() == fs::read(out("b.llmc")).unwrap());
}

#[test]
fn the_artifact_is_named_after_the_model_unless_told() {
    let directory = tempfile::tempdir().unwrap();
    for path in [tiny("llama"), tiny("llama").join("model.safetensors")] {
        let output = llmc().arg("compile").arg(path).args(["--dtype", "f32"]).current_dir(&directory).output().unwrap();
        assert!(output.status.success());
        assert!(text(&output.stderr).contains("warning: there is no tokenizer.json"), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("llama.llmc"));
        fs::remove_file(directory.path().join("llama.llmc")).unwrap();
    }
}

#[test]
fn compile_reports_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    let report = json(compile(tiny("llama"), &path).args(["--dtype", "f32"]));
    assert_eq!(report["artifact"], path.to_str().unwrap());
    assert_eq!(report["bytes"], path.metadata().unwrap().len());
    assert_eq!((&report["architecture"], &report["dtype"]), (&Value::from("LlamaForCausalLM"), &Value::from("f32")));
    assert!(report["warnings"][0].as_str().unwrap().contains("tokenizer.json"));
    let timing = &report["timing"];
    let sum = |list: &Value| list.as_array().unwrap().iter().map(|entry| entry["s"].as_f64().unwrap()).sum::<f64>();
    let parts = sum(&timing["passes"]) + sum(&timing["code"]) + timing["write_s"].as_f64().unwrap();
    assert!(parts > 0.0 && parts <= timing["total_s"].as_f64().unwrap());
}

/// The artifact is a safetensors file for everybody else, too.
#[test]
fn any_safetensors_reader_opens_an_artifact() {
    for name in TINY {
        let file = fs::read(artifact(&tiny(name), &["--dtype", "bf16"])).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        assert!(tensors.names().iter().any(|name| name.starts_with("weights/")));
        let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
        let manifest = metadata.metadata().as_ref().unwrap()["llmc.manifest"].clone();
        assert_eq!(serde_json::from_str::<Value>(&manifest).unwrap()["plan"]["model"]["dtype"], "bf16");
    }
}

#[test]
fn every_cpu_level_gives_the_golden_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    let available = cpu::features();
    let mut ran = Vec::new();
    // The second level has nothing that codegen uses beyond the first.
    for target in ["x86-64", "x86-64-v3", "x86-64-v4"] {
        for (model, dtype, margin) in [("llama_tied", "f32", 1e-3), ("mistral", "bf16", 0.25)] {
            succeeds(compile(tiny(model), &path).args(["--target", target, "--dtype", dtype]).args(ONE_SEQUENCE));
            let inspected = json(llmc().arg("inspect").arg(&path));
            let features = inspected["manifest"]["targets"][0]["cpu_features"].clone();
            let needed = llmc_artifact::HostCode {
                name: target.to_owned(),
                cpu_features: serde_json::from_value(features).unwrap(),
                tensor: String::new(),
                scratch_bytes: 0,
            };
            if cpu::missing_features(&needed, &available).is_empty() {
                assert_golden(&format!("{model} as {dtype} for {target}"), &path, model, margin);
                ran.push(target);
            }
        }
    }
    assert!(ran.contains(&"x86-64"), "every CPU runs this");
}

#[test]
fn the_best_of_several_targets_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    let targets = ["x86-64-v4", "x86-64-v3", "x86-64"];
    // The order on the command line does not matter.
    succeeds(compile(tiny("llama"), &path).args(["--target", "x86-64,x86-64-v4,x86-64-v3"]).args(ONE_SEQUENCE));
    let inspected = json(llmc().arg("inspect").arg(&path));
    let listed: Vec<&str> =
        inspected["manifest"]["targets"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(listed, targets);
    let available = cpu::features();
    let best = match () {
        () if ["avx512f", "avx512bw", "avx512vl"].iter().all(|feature| available.contains(*feature)) => "x86-64-v4",
        () if ["avx2", "fma", "bmi2"].iter().all(|feature| available.contains(*feature)) => "x86-64-v3",
        () => "x86-64",
    };
    let run = json(llmrt().arg("run").arg(&path).args(["--prompt-ids", "1", "-n", "1"]));
    assert_eq!(run["target"], best);
    assert_golden("several targets", &path, "llama", 0.25);
}

#[test]
fn every_optional_pass_and_rule_family_can_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    let mut names: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
    for pass in pipeline() {
        if pass.necessity == Necessity::Optional && !names.contains(&pass.name) {
            names.push(pass.name);
        }
    }
    assert!(names.len() >= 5);
    for name in &names {
        succeeds(compile(tiny("llama_tied"), &path).args(["--dtype", "f32", "--without", name]).args(ONE_SEQUENCE));
        assert_golden(&format!("without {name}"), &path, "llama_tied", 1e-3);
    }
    let all: Vec<&str> = names.iter().flat_map(|name| ["--without", name]).collect();
    for (model, dtype, margin) in [("qwen2", "f32", 1e-3), ("mistral", "bf16", 0.25)] {
        succeeds(compile(tiny(model), &path).args(["--dtype", dtype]).args(ONE_SEQUENCE).args(&all));
        assert_golden("without all of them", &path, model, margin);
    }
    fails_saying(compile(tiny("llama"), &path).args(["--without", "fuse"]), &["`fuse` cannot be left out", "cse"]);
    fails_saying(compile(tiny("llama"), &path).args(["--without", "speed"]), &["`speed`", "cse"]);
}

/// The text of each phase, made by `compile --stop-after`, goes through `opt` to the next one.
#[test]
fn opt_goes_on_where_compile_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let stopped = |phase: &str| {
        let output = directory.path().join("none.llmc");
        let text = succeeds(compile(tiny("llama"), &output).args(["--stop-after", phase]));
        assert!(!output.exists());
        text
    };
    let phases = ["imported", "canonical", "specialized", "rewritten", "fused", "planned"];
    let texts = phases.map(stopped);
    let file = directory.path().join("in.tir");
    // Rewriting starts anew from the specialised text.
    for (from, to) in [(0, 1), (1, 2), (2, 3), (2, 4)] {
        fs::write(&file, &texts[from]).unwrap();
        let opt = succeeds(llmc().args(["opt", "--stop-after", phases[to], "--max-context", "512"]).arg(&file));
        assert!(opt == texts[to], "{} to {}", phases[from], phases[to]);
    }
    assert!(texts[5].starts_with("plan LlamaForCausalLM"));
    fs::write(&file, &texts[0]).unwrap();
    // No pass at all: printing what was read gives the same text.
    assert!(succeeds(llmc().args(["opt", "--stop-after", "imported"]).arg(&file)) == texts[0]);
    assert!(succeeds(llmc().args(["opt", "--passes", "cse,dce"]).arg(&file)).starts_with("module "));
    fs::write(&file, texts[0].replacen("add ", "add %99999, ", 1)).unwrap();
    fails_saying(llmc().args(["opt", "--passes", "cse"]).arg(&file), &["in.tir:"]);
    fails_saying(llmc().args(["opt", "--passes", "magic"]).arg(&file), &["in.tir:"]);
    fs::write(&file, &texts[0]).unwrap();
    fails_saying(llmc().args(["opt", "--passes", "magic"]).arg(&file), &["`magic`", "cse"]);
    fails_saying(llmc().args(["opt", "/no/such.tir"]), &["cannot read /no/such.tir"]);
}

/// Forms are chosen by price and names made of what is there: no map's order gets into a dump.
#[test]
fn two_dumps_of_a_model_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let dumps = ["one", "two"].map(|name| {
        let dump = directory.path().join(name);
        let mut command = llmc();
        command.arg("compile").arg(tiny("qwen2")).args(["--target", "x86-64-v3,cuda:sm_80", "--stop-after", "planned"]);
        succeeds(command.arg("--dump").arg(&dump));
        let files = fs::read_dir(&dump).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    });
    assert!(dumps[0].len() > pipeline().len() && dumps[0] == dumps[1]);
}

#[test]
fn a_dump_has_every_pass_and_the_code() {
    let directory = tempfile::tempdir().unwrap();
    let dump = directory.path().join("new/dump");
    let output = directory.path().join("x.llmc");
    succeeds(compile(tiny("llama"), &output).args(["--target", "x86-64-v3", "--max-batch", "1", "--dump"]).arg(&dump));
    let mut names: Vec<String> =
        fs::read_dir(&dump).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names[0], "00-input.tir");
    for (index, pass) in pipeline().iter().enumerate() {
        assert!(names.contains(&format!("{:02}-{}.tir", index + 1, pass.name)), "{names:?}");
    }
    for (extension, holds) in [("ll", "define "), ("opt.ll", "define "), ("s", "llmc_decode:")] {
        let text = fs::read_to_string(dump.join(format!("code.x86-64-v3.{extension}"))).unwrap();
        assert!(text.contains(holds), "{extension}");
    }
    // Dumping changes nothing.
    let again = directory.path().join("y.llmc");
    succeeds(compile(tiny("llama"), &again).args(["--target", "x86-64-v3"]).args(ONE_SEQUENCE));
    assert!(fs::read(output).unwrap() == fs::read(again).unwrap());
}

#[test]
fn an_artifact_is_the_same_whatever_the_number_of_cores() {
    let directory = tempfile::tempdir().unwrap();
    let [one, three] = ["1", "3"].map(|threads| {
        let output = directory.path().join(threads);
        let mut command = compile(tiny("llama"), &output);
        succeeds(command.args(["--target", "x86-64-v4,cuda:sm_80"]).env("RAYON_NUM_THREADS", threads));
        fs::read(output).unwrap()
    });
    assert!(one == three);
}

#[test]
fn inspect_shows_what_is_inside() {
    let path = artifact(&tiny("llama"), &["--dtype", "bf16"]);
    let inspect = |arguments: &[&str]| {
        let mut command = llmc();
        command.arg("inspect").arg(&path).args(arguments);
        command
    };
    let summary = succeeds(&mut inspect(&[]));
    for part in ["LlamaForCausalLM", "program decode", "program prefill", "KV cache", "tokenizer  none", "target "] {
        assert!(summary.contains(part), "{part} is not in {summary}");
    }
    let inspected = json(&mut inspect(&[]));
    assert_eq!(inspected["bytes"], path.metadata().unwrap().len());
    let programs = inspected["programs"].as_array().unwrap();
    assert!(programs.len() >= 2);
    for program in programs {
        let name = program["name"].as_str().unwrap();
        let ir = succeeds(&mut inspect(&["--ir", name]));
        assert!(ir.contains(name) && ir.contains("kv_write"), "{ir}");
        let entry = succeeds(&mut inspect(&["--asm", name]));
        assert!(entry.contains("ret"), "{entry}");
        for kernel in program["kernels"].as_array().unwrap() {
            let (kernel_name, code) = (kernel["name"].as_str().unwrap(), &kernel["code_bytes"]);
            if code.as_object().unwrap().values().all(|bytes| bytes.as_u64() > Some(0)) {
                let full = format!("{name}.{kernel_name}");
                assert!(succeeds(&mut inspect(&["--asm", &full])).contains("ret"), "{full}");
            }
        }
    }
    fails_saying(&mut inspect(&["--ir", "encode"]), &["no program `encode`", "decode", "prefill"]);
    fails_saying(&mut inspect(&["--asm", "decode.magic"]), &["decode.magic", "lists the kernels"]);
    fails_saying(&mut inspect(&["--asm", "decode", "--target", "arm"]), &["--target must be one of"]);
}

#[test]
fn flags_out_of_range_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    let with = |flags: &[&str]| {
        let mut command = compile(tiny("llama"), &path);
        command.args(flags);
        command
    };
    fails_saying(&mut with(&["--max-context", "0"]), &["--max-context is 0", "1..=512"]);
    fails_saying(&mut with(&["--max-context", "513"]), &["--max-context is 513", "made for 512"]);
    fails_saying(&mut with(&["--max-batch", "0"]), &["--max-batch is 0"]);
    fails_saying(&mut with(&["--max-batch", "999999999999"]), &["--max-batch is 999999999999"]);
    fails_saying(&mut with(&["--target", "pentium"]), &["unknown target `pentium`", "x86-64-v3"]);
    fails_saying(&mut with(&["--target", ""]), &["unknown target"]);
    fails_saying(&mut with(&["--dtype", "f16"]), &["--dtype is f16", "bf16 or f32"]);
    assert!(!path.exists());
}
