//! What `llmc calibrate` measured is what the compiler decides by, and what is wrong with a stored measurement is said.

use super::support::binaries::{compile, fails_saying, json, llmc, succeeds};
use super::support::models::tiny;
use llmc_ir::machine::Machine;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The machine that an artifact was compiled for.
/// The description that an artifact was compiled with, without what follows from its code.
fn machine_of(artifact: &Path) -> Value {
    let mut machine = json(llmc().arg("explain").arg(artifact))["machines"][0].clone();
    machine.as_object_mut().expect("a description").remove("block_float");
    machine
}

#[test]
fn what_was_measured_is_stored_and_used() {
    let home = tempfile::tempdir().unwrap();
    let mut command = llmc();
    let measured = json(command.args(["calibrate", "--rounds", "1"]).env("XDG_CONFIG_HOME", home.path()));
    let stored = home.path().join("llmc/host.json");
    assert_eq!(measured["stored"], stored.to_str().unwrap());
    let machine = Machine::parse(&fs::read_to_string(&stored).unwrap()).unwrap();
    assert_eq!(measured["machine"], serde_json::to_value(&machine).unwrap());
    assert!(machine.source.contains("llmc calibrate"), "{}", machine.source);
    let artifact = home.path().join("x.llmc");
    let built_in = serde_json::to_value(Machine::named("host").unwrap()).unwrap();
    succeeds(compile(tiny("llama"), &artifact).args(["--max-batch", "1"]).env("XDG_CONFIG_HOME", home.path()));
    assert_eq!(machine_of(&artifact), measured["machine"]);
    // Tests compile for the built-in host, whatever the developer has measured.
    succeeds(compile(tiny("llama"), &artifact).args(["--max-batch", "1"]));
    assert_eq!(machine_of(&artifact), built_in);
    succeeds(compile(tiny("llama"), &artifact).args(["--max-batch", "1", "--machine"]).arg(&stored));
    assert_eq!(machine_of(&artifact), measured["machine"]);
}

#[test]
fn a_damaged_description_is_named_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let artifact = home.path().join("x.llmc");
    let stored = home.path().join("llmc/host.json");
    fs::create_dir(home.path().join("llmc")).unwrap();
    fs::write(&stored, "{\"name\": \"host\", \"source\": 1}").unwrap();
    let with = |machine: &str| {
        let mut command = compile(tiny("llama"), &artifact);
        command.args(["--machine", machine]).env("XDG_CONFIG_HOME", home.path());
        command
    };
    let path = stored.to_str().unwrap();
    fails_saying(&mut with("host"), &[path, "JSON object", "run `llmc calibrate` to measure again"]);
    fails_saying(&mut with(path), &[path, "JSON object", "name another"]);
    fails_saying(&mut with("./nowhere.json"), &["nowhere.json", "name another"]);
    fails_saying(&mut with("z80"), &["z80", "a100", "JSON file"]);
    // Other machines do not mind.
    succeeds(with("l4").args(["--target", "cuda:sm_80", "--stop-after", "specialized"]));
}

#[test]
fn what_cannot_be_measured_or_stored_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let calibrate = |arguments: &[&str]| {
        let mut command = llmc();
        command.arg("calibrate").args(arguments).env("XDG_CONFIG_HOME", directory.path());
        command
    };
    fs::write(directory.path().join("llmc"), "a file where a directory should be").unwrap();
    fails_saying(&mut calibrate(&[]), &["llmc", "-o"]);
    fails_saying(&mut calibrate(&["-o", "/no/such/directory/x.json"]), &["/no/such/directory/x.json"]);
    let elsewhere = directory.path().join("x.json");
    let flags = ["--bytes", "9000000G", "-o", elsewhere.to_str().unwrap()];
    fails_saying(&mut calibrate(&flags), &["9000000000000000 bytes", "are free", "smaller"]);
    assert!(!elsewhere.exists());
    let mut homeless = calibrate(&[]);
    fails_saying(homeless.env_remove("XDG_CONFIG_HOME").env_remove("HOME"), &["HOME", "-o"]);
}
