//! The engines, each measured with its own tools.

use super::process::{output, whole_run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A prompt of a few tokens.
const PROMPT: &str = "The capital of France is";

/// Metrics of one round, by name.
pub type Round = BTreeMap<String, f64>;

/// An engine with a model.
pub struct Engine {
    /// What tables call it.
    pub name: String,
    /// How it is measured.
    pub measure: Box<dyn Measure>,
}

/// Something that can be measured.
pub trait Measure {
    /// Measures everything once.
    fn round(&self, threads: usize) -> Result<Round, Box<dyn Error>>;
}

/// This project.
pub struct Llmrt {
    /// llmrt.
    pub binary: PathBuf,
    /// The compiled model.
    pub artifact: PathBuf,
}

impl Measure for Llmrt {
    fn round(&self, threads: usize) -> Result<Round, Box<dyn Error>> {
        let command = |name: &str| {
            let mut command = Command::new(&self.binary);
            command.arg(name).arg(&self.artifact).args(["--device", "host", "--threads", &threads.to_string()]);
            command
        };
        let mut round = first_token(command("run").args(["--raw", "-p", PROMPT, "-n", "1"]))?;
        let alone = ["-p", "512,2048", "-n", "128", "--depth", "0,1024"];
        let together = ["-p", "0", "-n", "64", "--depth", "128", "--batch", "8,16"];
        for arguments in [&alone[..], &together] {
            let text = output(command("bench").args(arguments).args(["-r", "1", "--json"]))?;
            let rows: Vec<Value> = serde_json::from_str(&text)?;
            for row in rows {
                let number = |field: &str| row[field].as_u64().unwrap_or(0);
                let name = match (number("prompt"), number("depth"), number("batch")) {
                    (0, 0, 1) => "decode".to_owned(),
                    (0, depth, 1) => format!("decode @ {depth}"),
                    (0, _, batch) => format!("decode x {batch}"),
                    (prompt, ..) => format!("prefill {prompt}"),
                };
                round.insert(name, row["median"].as_f64().ok_or("llmrt bench gives no median")?);
            }
        }
        Ok(round)
    }
}

/// llama.cpp.
pub struct LlamaCpp {
    /// Where its tools are.
    pub binaries: PathBuf,
    /// A GGUF file.
    pub model: PathBuf,
}

impl Measure for LlamaCpp {
    fn round(&self, threads: usize) -> Result<Round, Box<dyn Error>> {
        let threads = threads.to_string();
        let command = |name: &str| {
            let mut command = Command::new(self.binaries.join(name));
            command.arg("-m").arg(&self.model).args(["-t", &threads]);
            command
        };
        let mut completion = command("llama-completion");
        completion.args(["-p", PROMPT, "-n", "1", "-no-cnv", "--no-warmup", "--temp", "0", "-c", "2048"]);
        let mut round = first_token(&mut completion)?;
        for arguments in [&["-p", "512,2048", "-n", "128"][..], &["-p", "0", "-n", "128", "-d", "1024"]] {
            let text = output(command("llama-bench").args(arguments).args(["-r", "1", "-o", "jsonl"]))?;
            for line in text.lines() {
                let row: Value = serde_json::from_str(line)?;
                let number = |field: &str| row[field].as_u64().unwrap_or(0);
                let name = match (number("n_prompt"), number("n_depth")) {
                    (0, 0) => "decode".to_owned(),
                    (0, depth) => format!("decode @ {depth}"),
                    (prompt, _) => format!("prefill {prompt}"),
                };
                round.insert(name, row["avg_ts"].as_f64().ok_or("llama-bench gives no rate")?);
            }
        }
        let mut batched = command("llama-batched-bench");
        batched.args(["-tb", &threads, "-c", "8192", "-b", "2048", "-ub", "512"]);
        let text = output(batched.args(["-npp", "128", "-ntg", "64", "-npl", "8,16"]))?;
        // A Markdown table: prompt, generated, batch, positions, and seconds and rates of prompts, generation and all.
        for line in text.lines() {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            if let (Some(Ok(batch)), Some(Ok(rate))) =
                (cells.get(2).map(|cell| cell.parse::<usize>()), cells.get(7).map(|cell| cell.parse::<f64>()))
            {
                round.insert(format!("decode x {batch}"), rate);
            }
        }
        Ok(round)
    }
}

/// OpenVINO GenAI.
pub struct OpenVino {
    /// A Python that has it.
    pub python: PathBuf,
    /// The model's directory or file.
    pub model: PathBuf,
}

impl Measure for OpenVino {
    fn round(&self, threads: usize) -> Result<Round, Box<dyn Error>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/peers/measure_openvino.py");
        let command = |what: &str| {
            let mut command = Command::new(&self.python);
            command.arg(&script).arg(&self.model).args([&threads.to_string(), what]);
            command.env("OPENVINO_TELEMETRY", "0");
            command
        };
        let mut round = first_token(&mut command("first-token"))?;
        let text = output(&mut command("bench"))?;
        let found: Round = serde_json::from_str(text.lines().last().ok_or("it prints nothing")?)?;
        round.extend(found);
        Ok(round)
    }
}

/// A whole process that says one token.
fn first_token(command: &mut Command) -> Result<Round, Box<dyn Error>> {
    let (seconds, megabytes) = whole_run(command)?;
    Ok(BTreeMap::from([("first token".to_owned(), seconds), ("peak RSS".to_owned(), megabytes)]))
}
