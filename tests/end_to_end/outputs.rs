//! Places that cannot be written, and Ctrl-C: an error, and nothing half-written.

use super::support::binaries::{compile, fails_saying, llmc, llmrt, succeeds, text};
use super::support::broken::Broken;
use super::support::models::{artifact, tiny};
use llmc::compile::{Outcome, Progress, Request, compile as compile_model};
use llmc::error::CompileError;
use llmc::model::Model;
use llmc::tune::Tunings;
use llmc_codegen::host::HostTarget;
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use llmc_passes::phase::Phase;
use llmc_passes::pipeline::Options;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Names in a directory, hidden ones too.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn places_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    fails_saying(
        &mut compile(tiny("llama"), "/no/such/directory/x.llmc"),
        &["/no/such/directory/x.llmc", "directory exists"],
    );
    fails_saying(&mut compile(tiny("llama"), directory.path()), &["it is a directory"]);
    fails_saying(&mut compile(tiny("llama"), "/proc/x.llmc"), &["/proc/x.llmc"]);
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    fails_saying(&mut compile(tiny("llama"), file.join("x.llmc")), &["file/x.llmc", "Not a directory"]);
    for device in ["/dev/null", "/dev/full"] {
        fails_saying(&mut compile(tiny("llama"), device), &[device, "regular file"]);
        assert!(fs::metadata(device).unwrap().file_type().is_char_device(), "{device} is still what it was");
    }
    let dump = file.join("dump");
    fails_saying(compile(tiny("llama"), directory.path().join("x.llmc")).arg("--dump").arg(&dump), &["file/dump"]);
    assert_eq!(names(directory.path()), ["file"]);
}

#[test]
fn an_artifact_never_replaces_its_checkpoint() {
    let parent = tempfile::tempdir().unwrap();
    let directory = Broken::new().write(parent.path());
    let weights = directory.join("model.safetensors");
    let before = fs::read(&weights).unwrap();
    fails_saying(&mut compile(&directory, &weights), &["model.safetensors", "another name with -o"]);
    assert!(fs::read(&weights).unwrap() == before);
}

/// A shell limits the size of files, in blocks of 512 bytes: the same as a full disk, without one.
fn limited(blocks: u32, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"]).arg(command.get_program());
    shell.args(command.get_args()).stdin(Stdio::null());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

#[test]
fn a_disk_that_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    fs::write(&path, "what was there before").unwrap();
    // Enough for the code, not for the weights; then not even for the code.
    for (blocks, says) in [(600, "x.llmc: File too large"), (1, "File too large")] {
        fails_saying(&mut limited(blocks, &compile(tiny("llama"), &path)), &[says, "make room"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "what was there before");
        assert_eq!(names(directory.path()), ["x.llmc"]);
    }
}

#[test]
fn standard_output_that_is_full() {
    let artifact = artifact(&tiny("llama"), &["--dtype", "f32"]);
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let prompt = ["--prompt-ids", "1,2", "-n", "2"];
    for command in [
        llmrt().arg("run").arg(&artifact).args(prompt),
        llmrt().arg("run").arg(&artifact).args(prompt).arg("--json"),
        llmrt().arg("bench").arg(&artifact).args(["-p", "1", "-n", "1", "-r", "1"]),
        llmc().arg("inspect").arg(&artifact),
        llmc().arg("compile").arg(tiny("llama")).args(["--stop-after", "fused"]),
    ] {
        let output = command.stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(text(&output.stderr).contains("cannot write to standard output"), "{}", text(&output.stderr));
    }
}

#[test]
fn ctrl_c_while_compiling_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    // Many targets take seconds.
    let targets = "x86-64,x86-64-v2,x86-64-v3,x86-64-v4,znver4,sapphirerapids";
    let mut command = compile(tiny("llama"), &path);
    let mut child = command.args(["--target", targets]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The warning about the missing tokenizer comes when Ctrl-C is listened to and before any code is made.
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    let mut warning = String::new();
    notes.read_line(&mut warning).unwrap();
    assert!(warning.starts_with("warning: "), "{warning}");
    // SAFETY: a signal to a child that has not been waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let mut rest = String::new();
    notes.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), rest.as_str()), (Some(1), "error: interrupted; nothing was written\n"));
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

/// Wherever the interruption comes: in the passes, in code generation, between any two pieces of weights.
#[test]
fn an_interruption_at_any_point_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    let model = Model::load(&tiny("llama"), DType::F32).unwrap();
    let request = Request {
        targets: vec![HostTarget::named("x86-64").unwrap()],
        gpus: Vec::new(),
        max_context: Some(32),
        max_batch: 1,
        machines: Machine::named("host").unwrap().into(),
        passes: Options::default(),
        tuning: Tunings::Defaults,
        dump: None,
    };
    let interrupted_after = |most: usize| {
        let mut events = 0;
        let outcome = compile_model(&model, &request, &path, &mut |_| {
            events += 1;
            events <= most
        });
        (outcome, events)
    };
    let (outcome, all) = interrupted_after(usize::MAX);
    assert!(matches!(outcome, Ok(Outcome::Written(_))));
    fs::remove_file(&path).unwrap();
    for most in [0, 1, 2, 3, all / 2, all - 1] {
        assert!(matches!(interrupted_after(most).0, Err(CompileError::Interrupted)), "after {most} of {all}");
        assert_eq!(names(directory.path()), Vec::<String>::new(), "after {most} of {all}");
    }
}

/// Whoever compiles a large model hears at once that the artifact has no place.
#[test]
fn places_are_tried_before_anything_is_made() {
    let model = Model::load(&tiny("llama"), DType::F32).unwrap();
    let request = |stop_after| Request {
        targets: vec![HostTarget::named("x86-64").unwrap()],
        gpus: Vec::new(),
        max_context: Some(32),
        max_batch: 1,
        machines: Machine::named("host").unwrap().into(),
        passes: Options { stop_after, ..Options::default() },
        tuning: Tunings::Defaults,
        dump: None,
    };
    let nowhere = Path::new("/no/such/directory/x.llmc");
    let made_nothing = |progress: Progress<'_>| {
        assert_eq!(progress, Progress::Passes);
        true
    };
    assert!(compile_model(&model, &request(None), nowhere, &mut |event| made_nothing(event)).is_err());
    // Who only looks at the passes needs no place.
    let stopped = compile_model(&model, &request(Some(Phase::Fused)), nowhere, &mut |event| made_nothing(event));
    assert!(matches!(stopped, Ok(Outcome::Stopped(..))));
}

/// The temporary files of a compilation that succeeds are gone as well, and so are those of the linker.
#[test]
fn a_compilation_leaves_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.llmc");
    succeeds(compile(tiny("llama"), &path).env("TMPDIR", temporary.path()));
    assert_eq!(names(directory.path()), ["x.llmc"]);
    assert_eq!(names(temporary.path()), Vec::<String>::new());
    fails_saying(compile(tiny("llama"), &path).env("TMPDIR", "/no/such/place"), &["/no/such/place", "TMPDIR"]);
}
