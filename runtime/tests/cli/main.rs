//! The built binary on a toy model: what reaches stdout, stderr and the exit code.

mod toy;

use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use toy::{CONTEXT, END, Kind, VOCAB};

/// A directory with a toy artifact.
struct Toy {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn toy(kind: Kind) -> Toy {
    let directory = tempfile::tempdir().unwrap();
    let path = toy::artifact(directory.path(), kind);
    Toy { directory, path }
}

impl Toy {
    fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut llmrt = Command::new(env!("CARGO_BIN_EXE_llmrt"));
        llmrt.arg(command).arg(&self.path).args(arguments).stdin(Stdio::null());
        llmrt
    }

    fn output(&self, command: &str, arguments: &[&str]) -> Output {
        self.command(command, arguments).output().unwrap()
    }

    /// The standard output of a command that succeeds.
    fn succeeds(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.output(command, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, command: &str, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.succeeds(command, &arguments)).unwrap()
    }

    /// The one line of stderr of a command that fails with `code` and writes nothing to stdout.
    fn fails(&self, code: i32, command: &str, arguments: &[&str]) -> String {
        let output = self.output(command, arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty());
        assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
        message
    }

    fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a `llmrt chat` prints for these lines.
fn chats(toy: &Toy, arguments: &[&str], lines: &str) -> (String, String) {
    let mut command = toy.command("chat", arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn text_goes_to_stdout_and_the_rest_to_stderr() {
    let output = toy(Kind::Text).output("run", &["-p", "tuv"]);
    assert_eq!(text(&output.stdout), "wxyz");
    let notes = text(&output.stderr);
    assert!(notes.starts_with("prefill 3 tokens") && notes.contains("load") && notes.lines().count() == 1, "{notes}");
}

#[test]
fn the_json_object_has_everything() {
    let run = toy(Kind::Text).json("run", &["-p", "wx", "--logprobs", "2"]);
    assert_eq!(run["prompt_ids"], serde_json::json!([119, 120]));
    assert_eq!(run["ids"], serde_json::json!([121, 122, END]));
    assert_eq!(run["text"], "yz");
    assert_eq!(run["finish_reason"], "stop");
    assert_eq!(run["logprobs"].as_array().unwrap().len(), 3);
    assert_eq!(run["logprobs"][0]["id"], 121);
    assert_eq!(run["logprobs"][0]["top"][0][0], 121);
    assert_eq!(run["logprobs"][0]["top"][0][1], run["logprobs"][0]["logprob"]);
    assert_eq!(run["logprobs"][0]["top"].as_array().unwrap().len(), 2);
    assert_eq!(run["timing"]["prefill_tokens"], 2);
    assert_eq!(run["timing"]["decode_tokens"], 2);
    for seconds in ["load_s", "prefill_s", "decode_s"] {
        assert!(run["timing"][seconds].as_f64().unwrap() > 0.0, "{seconds}");
    }
    assert_eq!(run["target"], "x86-64");
    assert!(run["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    let keys: Vec<&String> = run.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 8, "{keys:?}");
}

#[test]
fn the_mode_is_chat_where_there_is_a_template() {
    let chat = toy(Kind::Chat);
    let ids = |arguments: &[&str]| chat.json("run", arguments)["prompt_ids"].as_array().unwrap().len();
    // `U:x</s>A:`
    assert_eq!(ids(&["-p", "x", "-n", "1"]), 6);
    assert_eq!(ids(&["-p", "x", "-n", "1", "--chat"]), 6);
    assert_eq!(ids(&["-p", "x", "-n", "1", "--raw"]), 1);
    let plain = toy(Kind::Text);
    assert_eq!(plain.json("run", &["-p", "x", "-n", "1"])["prompt_ids"].as_array().unwrap().len(), 1);
    assert!(plain.fails(2, "run", &["-p", "x", "--chat"]).contains("no chat template"));
}

#[test]
fn generation_ends_where_it_should() {
    let toy = toy(Kind::Text);
    let reason = |arguments: &[&str]| {
        let run = toy.json("run", arguments);
        (run["finish_reason"].as_str().unwrap().to_owned(), run["text"].as_str().unwrap().to_owned())
    };
    assert_eq!(reason(&["-p", "a", "-n", "3"]), ("length".to_owned(), "bcd".to_owned()));
    assert_eq!(reason(&["-p", "y", "-n", "4", "--ignore-eos"]), ("length".to_owned(), "zab".to_owned()));
    assert_eq!(reason(&["-p", "y"]), ("stop".to_owned(), "z".to_owned()));
    let (why, text) = reason(&["-p", "a", "--ignore-eos"]);
    assert_eq!(why, "context");
    assert!(text.len() >= CONTEXT - 5, "{text}");
}

#[test]
fn half_a_character_is_never_written() {
    let toy = toy(Kind::Text);
    assert_eq!(toy.succeeds("run", &["-p", "!", "-n", "3"]), "éx");
    assert_eq!(toy.succeeds("run", &["-p", "!", "-n", "1"]), "\u{fffd}");
}

#[test]
fn sampling_depends_on_the_seed_alone() {
    let toy = toy(Kind::Text);
    let run = |seed: &str| {
        toy.succeeds(
            "run",
            &["-p", "Q", "-n", "12", "--ignore-eos", "--temperature", "5", "--top-k", "9", "--seed", seed],
        )
    };
    assert_eq!(run("1"), run("1"));
    assert!((2..6).any(|seed| run(&seed.to_string()) != run("1")));
    assert_eq!(toy.succeeds("run", &["-p", "Q", "-n", "4", "--top-k", "1"]), "RSTU");
}

#[test]
fn prompts_come_from_files_and_ids() {
    let toy = toy(Kind::Text);
    let file = toy.file("prompt.txt", b"wx");
    assert_eq!(toy.succeeds("run", &["--prompt-file", &file]), "yz");
    assert_eq!(toy.succeeds("run", &["--prompt-ids", "119,120"]), "yz");
    let bare = self::toy(Kind::Bare);
    assert_eq!(bare.succeeds("run", &["--prompt-ids", "120"]), "121 122 257");
    assert_eq!(bare.json("run", &["--prompt-ids", "120"])["text"], Value::Null);
    assert!(bare.fails(2, "run", &["-p", "x"]).contains("--prompt-ids"));
}

#[test]
fn bad_prompts_are_named() {
    let toy = toy(Kind::Chat);
    let binary = toy.file("binary", b"ab\xff");
    let long = "x".repeat(CONTEXT + 1);
    for (arguments, says) in [
        (&["-p", ""][..], "empty"),
        (&["-p", "", "--raw"], "empty"),
        (&["--prompt-ids", ""], "empty"),
        (&["--prompt-ids", "1,two"], "`two`"),
        (&["--prompt-ids", "-1"], "`-1`"),
        (&["--prompt-ids", "1,259"], &format!("vocabulary is 0..{VOCAB}")),
        (&["--prompt-file", "/no/such/file"], "cannot read /no/such/file"),
        (&["--prompt-file", &binary], "not UTF-8"),
        (&["--raw", "-p", &long], &format!("{} tokens, but the model's context is {CONTEXT}", CONTEXT + 1)),
        (&["-p", "x", "-n", "0"], "-n is 0, but must be at least 1"),
        (&["-p", "x", "--temperature", "-1"], "temperature is -1"),
        (&["-p", "x", "--top-p", "2"], "top-p is 2"),
    ] {
        let message = toy.fails(2, "run", arguments);
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(toy.output("run", &[]).status.code(), Some(2));
    assert_eq!(toy.output("run", &["-p", "x", "--threads", "0"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let toy = toy(Kind::Text);
    let mut command = toy.command("run", &["-p", "a", "--ignore-eos"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!text(&output.stderr).contains("panicked"));
}

#[test]
fn chat_answers_line_by_line() {
    let toy = toy(Kind::Chat);
    // The prompt ends with `A:`, after which the toy spells from `;` on.
    let (said, notes) = chats(&toy, &["-n", "3"], "hello\n\n/help\n/nonsense\nagain\n/exit\nnot read\n");
    assert_eq!(said, ";<=\n;<=\n");
    assert!(notes.contains("/reset") && notes.contains("/nonsense is not a command"), "{notes}");
}

#[test]
fn chat_forgets_a_message_that_does_not_fit_and_can_start_anew() {
    let toy = toy(Kind::Chat);
    let line = "x".repeat(CONTEXT - 20);
    let (said, notes) = chats(&toy, &["-n", "2", "--system", "S"], &format!("{line}\n{line}\nok\n/reset\n{line}\n"));
    assert_eq!(said, ";<\n;<\n;<\n", "{notes}");
    assert_eq!(notes.matches("the model's context is 96").count(), 1, "{notes}");
    assert!(notes.contains("starts anew"));
}

#[test]
fn chat_needs_a_template() {
    assert!(toy(Kind::Chat).fails(2, "chat", &["-n", "0"]).contains("-n is 0"));
    assert!(toy(Kind::Text).fails(2, "chat", &[]).contains("no chat template"));
    assert!(toy(Kind::Bare).fails(2, "chat", &[]).contains("needs a tokenizer"));
}

#[test]
fn eval_scores_what_the_model_expects() {
    let toy = toy(Kind::Text);
    let good = toy.file("good.txt", b"abcdefghijklmnopqrstuvwxabcdefgh");
    let bad = toy.file("bad.txt", b"azbycxdwevfugthsirjqkplomnazby");
    let eval = |file: &str, window: &str| toy.json("eval", &["--file", file, "--window", window]);
    let result = eval(&good, "24");
    assert_eq!(result["tokens"], 23);
    // The right token has logit 8, those beside it 6, 4, ...: a geometric series on both sides.
    let expected = (1.0 + 2.0 * (-2.0f64).exp() / (1.0 - (-2.0f64).exp())).ln();
    assert!((result["nll"].as_f64().unwrap() - expected).abs() < 1e-5, "{result} {expected}");
    assert!((result["perplexity"].as_f64().unwrap() - expected.exp()).abs() < 1e-4);
    assert!(eval(&bad, "24")["perplexity"].as_f64().unwrap() > 100.0);
    assert_eq!(eval(&good, "8")["tokens"], 28);
    assert_eq!(eval(&good, "90")["tokens"], 31);
    assert!(toy.fails(2, "eval", &["--file", &good, "--window", "97"]).contains("context is 96"));
    assert!(toy.fails(2, "eval", &["--file", &good, "--window", "1"]).contains("at least 2"));
    let short = toy.file("short.txt", b"a");
    assert!(toy.fails(2, "eval", &["--file", &short]).starts_with("error: "));
    assert!(self::toy(Kind::Bare).fails(2, "eval", &["--file", &good, "--window", "8"]).contains("tokenizer"));
}

#[test]
fn verify_finds_a_flipped_byte() {
    let toy = toy(Kind::Chat);
    assert!(toy.succeeds("verify", &[]).contains("intact"));
    let mut bytes = std::fs::read(&toy.path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&toy.path, bytes).unwrap();
    assert!(toy.fails(1, "verify", &[]).contains("tokenizer.json"));
}

#[test]
fn bench_measures_what_is_asked_for() {
    let toy = toy(Kind::Bare);
    let rows =
        toy.json("bench", &["-p", "8,40", "-n", "4", "--depth", "0,32", "--batch", "1,3", "-r", "2", "--threads", "2"]);
    let rows = rows.as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["pp8", "pp40", "tg4", "tg4 x 3", "tg4 @ d32", "tg4 @ d32 x 3"]);
    for row in rows {
        assert!(row["median"].as_f64().unwrap() > 0.0);
        assert_eq!(row["values"].as_array().unwrap().len(), 2);
        assert_eq!(row["threads"], 2);
        assert_eq!(row["unit"], "tokens/s");
    }
    assert_eq!((&rows[5]["prompt"], &rows[5]["generate"]), (&Value::from(0), &Value::from(4)));
    assert_eq!((&rows[5]["depth"], &rows[5]["batch"]), (&Value::from(32), &Value::from(3)));
    // The toy's plan says that a token takes 64 operations and a step 128 bytes; both leave a floor to be above.
    for row in rows {
        let floor = &row["floor"];
        let reached = row["median"].as_f64().unwrap() / floor["tokens_per_second"].as_f64().unwrap();
        assert!(reached > 0.0 && (floor["reached"].as_f64().unwrap() / reached - 1.0).abs() < 1e-9, "{row}");
        assert!(["reads", "products"].contains(&floor["bound"].as_str().unwrap()), "{row}");
        assert!(floor["machine"].as_str().unwrap().contains("measured between the tests"), "{row}");
    }
    let table = toy.succeeds("bench", &["-p", "8", "-n", "0", "-r", "1"]);
    assert!(
        table.lines().count() == 5 && table.contains("of floor") && table.contains("\nfloor: reads of "),
        "{table}"
    );
    assert!(toy.fails(2, "bench", &["-p", "0", "-n", "0"]).contains("nothing to measure"));
    assert!(toy.fails(2, "bench", &["-p", "97", "-n", "0"]).contains("pp97 takes 97 positions"));
    assert!(toy.fails(2, "bench", &["-p", "0", "-n", "8", "--batch", "5"]).contains("5 sequences"));
    assert!(toy.fails(2, "bench", &["-p", "0", "-n", "1", "--depth", "18446744073709551615"]).contains("positions"));
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let toy = toy(Kind::Bare);
    std::fs::write(&toy.path, b"not a model at all").unwrap();
    for arguments in [&["run", "-p", "x"][..], &["verify"], &["bench"], &["chat"]] {
        let message = toy.fails(1, arguments[0], &arguments[1..]);
        assert!(message.contains("toy.llmc"), "{message}");
    }
}
