//! What users and scripts see of a real model: streams, JSON, a conversation in a terminal.

use super::support::binaries::{ids, json, llmrt, succeeds};
use super::support::models::{artifact, fixtures, smollm2};
use super::support::terminal::Terminal;
use llmc_artifact::Artifact;
use llmc_ir::plan::KV_BLOCK_POSITIONS;
use serde_json::Value;

/// Keys of a JSON object, sorted.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn run_prints_what_scripts_were_promised() {
    let artifact = artifact(&smollm2(), &[]);
    let flags = ["-p", "What is the capital of France?", "--logprobs", "3"];
    let run = json(llmrt().arg("run").arg(&artifact).args(flags));
    let expected = ["finish_reason", "ids", "logprobs", "peak_rss_bytes", "prompt_ids", "target", "text", "timing"];
    assert_eq!(keys(&run), expected);
    assert_eq!(keys(&run["timing"]), ["decode_s", "decode_tokens", "load_s", "prefill_s", "prefill_tokens"]);
    let (found, logprobs) = (ids(&run["ids"]), run["logprobs"].as_array().unwrap());
    assert_eq!(found.len(), logprobs.len());
    for (id, entry) in found.iter().zip(logprobs) {
        assert_eq!(keys(entry), ["id", "logprob", "top"]);
        let top = entry["top"].as_array().unwrap();
        // Greedy: the token is the likeliest, and the others follow in order.
        assert_eq!((&entry["id"], &top[0][0], &top[0][1]), (&Value::from(*id), &Value::from(*id), &entry["logprob"]));
        let values: Vec<f64> = top.iter().map(|pair| pair[1].as_f64().unwrap()).collect();
        assert!(values.len() == 3 && values.is_sorted_by(|a, b| a >= b) && values[0] <= 0.0, "{values:?}");
    }
    assert_eq!(run["timing"]["prefill_tokens"], ids(&run["prompt_ids"]).len());
    assert_eq!(run["timing"]["decode_tokens"], found.len() - 1);
    // The stream is the text, without the stop token.
    let streamed = succeeds(llmrt().arg("run").arg(&artifact).args(&flags[..2]));
    assert_eq!(run["text"], streamed);
}

#[test]
fn memory_stays_near_the_size_of_the_artifact() {
    let path = artifact(&smollm2(), &[]);
    let run = json(llmrt().arg("run").arg(&path).args(["-p", "Write a story.", "-n", "100", "--ignore-eos"]));
    let artifact = Artifact::open(&path).unwrap();
    let positions = ids(&run["prompt_ids"]).len() + ids(&run["ids"]).len();
    let cache = positions.div_ceil(KV_BLOCK_POSITIONS) * artifact.manifest().plan.kv.block_bytes();
    let (peak, limit) = (run["peak_rss_bytes"].as_f64().unwrap(), 1.2 * artifact.size_bytes() as f64 + cache as f64);
    assert!(peak < limit, "{peak} bytes, at most {limit} are right");
}

#[test]
fn characters_of_many_tokens_are_never_cut() {
    let artifact = artifact(&smollm2(), &[]);
    // The model repeats them, each being several tokens of single bytes.
    let flags = ["--raw", "-p", "🦀🐙🦑🦀🐙🦑🦀🐙🦑🦀🐙🦑🦀🐙", "--ignore-eos"];
    for count in ["1", "2", "3", "4", "5", "40"] {
        let mut command = llmrt();
        let run = json(command.arg("run").arg(&artifact).args(flags).args(["-n", count]));
        // Not UTF-8, and this would fail.
        let streamed = succeeds(llmrt().arg("run").arg(&artifact).args(flags).args(["-n", count]));
        assert_eq!(run["text"], streamed);
        assert!(count != "40" || streamed.contains('🐙'), "{streamed}");
    }
}

#[test]
fn sampling_is_the_same_for_the_same_seed() {
    let artifact = artifact(&smollm2(), &[]);
    let run = |seed: &str| {
        let mut command = llmrt();
        command.arg("run").arg(&artifact).args(["-p", "Write a poem.", "-n", "24", "--temperature", "1.2"]);
        ids(&json(command.args(["--top-p", "0.95", "--min-p", "0.02", "--repetition-penalty", "1.1", "--seed", seed]))
            ["ids"])
    };
    let first = run("1");
    assert_eq!(first, run("1"));
    assert_ne!(first, run("2"));
}

#[test]
fn eval_and_bench_print_what_scripts_were_promised() {
    let artifact = artifact(&smollm2(), &[]);
    let text = fixtures().join("golden/text.txt");
    let mut command = llmrt();
    let eval =
        json(command.arg("eval").arg(&artifact).arg("--file").arg(text).args(["--window", "64", "--windows", "2"]));
    assert_eq!(keys(&eval), ["nll", "perplexity", "tokens"]);
    assert_eq!(eval["tokens"], 2 * 63);
    let mut command = llmrt();
    let rows = json(command.arg("bench").arg(&artifact).args(["-p", "32", "-n", "2", "--batch", "1,8", "-r", "2"]));
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let expected = ["batch", "depth", "floor", "generate", "median", "prompt", "test", "threads", "unit", "values"];
        assert_eq!(keys(row), expected);
        assert!(row["median"].as_f64().unwrap() > 0.0 && row["values"].as_array().unwrap().len() == 2);
    }
}

/// How many tokens of a prompt were read, came from the cache, and are in it.
fn reading(screen: &str) -> [usize; 3] {
    let line = &screen[screen.rfind('[').unwrap()..];
    let numbers: Vec<usize> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    numbers[..3].try_into().unwrap()
}

#[test]
fn a_conversation_in_a_terminal() {
    let mut command = llmrt();
    let mut terminal = Terminal::start(command.arg("chat").arg(artifact(&smollm2(), &[])));
    terminal.shows("/help lists commands");
    terminal.shows("> ");
    terminal.types("What is the capital of France?\r");
    let screen = terminal.shows("from the cache");
    assert!(screen.contains("The capital of France is Paris."), "{screen}");
    let [read, cached, first] = reading(&screen);
    assert_eq!((read, cached), (first, 0));
    terminal.types("And of Italy?\r");
    let screen = terminal.shows("from the cache");
    assert!(screen.contains("Rome"), "{screen}");
    let [read, cached, second] = reading(&screen);
    // Whole blocks of the first turn, its reply included, are not read again.
    assert!(cached >= KV_BLOCK_POSITIONS && cached + read == second && second > first, "{screen}");
    terminal.types("/help\r");
    terminal.shows("/reset  forget the conversation");
    // What is typed before is drawn by the terminal too.
    terminal.shows("> ");
    terminal.types("Write a very long story about a dragon.\r");
    // The line may be drawn several times before it is accepted, and only then Ctrl-C is a signal.
    terminal.shows("dragon.");
    terminal.shows("\n");
    // The model is in the middle of it.
    terminal.shows("dragon");
    terminal.types("\x03");
    terminal.shows("(stopped)");
    terminal.shows("> ");
    terminal.types("/reset\r");
    terminal.shows("starts anew");
    terminal.types("What is the capital of France?\r");
    let [_, _, again] = reading(&terminal.shows("from the cache"));
    assert_eq!(again, first, "nothing of the old conversation is in the prompt");
    terminal.shows("> ");
    terminal.types("/exit\r");
    assert_eq!(terminal.ends().code(), Some(0));
}
