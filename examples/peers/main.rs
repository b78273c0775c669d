//! This project beside llama.cpp and OpenVINO: each engine measured in turn, round by round, so that a slow moment of the
//! machine hits all alike. Prints a table of medians and draws it. `./x bench peers` sets everything up and calls this.
//!
//! | metric | what |
//! |---|---|
//! | prefill N | tokens per second of reading a prompt of N tokens |
//! | decode | tokens per second of one sequence, from the start or behind 1024 tokens |
//! | decode x B | tokens per second of B sequences together, behind 128 tokens each |
//! | first token | seconds of a whole process that reads a prompt of a few tokens and says one more |
//! | peak RSS | the most memory of that process |

mod engines;
mod plot;
mod process;

use clap::Parser;
use engines::{Engine, LlamaCpp, Llmrt, OpenVino};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

/// Metrics in the order of the table: name, unit, and whether more is better.
pub const METRICS: [(&str, &str, Better); 8] = [
    ("prefill 512", "tokens/s", Better::More),
    ("prefill 2048", "tokens/s", Better::More),
    ("decode", "tokens/s", Better::More),
    ("decode @ 1024", "tokens/s", Better::More),
    ("decode x 8", "tokens/s", Better::More),
    ("decode x 16", "tokens/s", Better::More),
    ("first token", "s", Better::Less),
    ("peak RSS", "MB", Better::Less),
];

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Large ones.
    More,
    /// Small ones.
    Less,
}

/// Each engine with the values of each metric, one of each round.
pub type Results = Vec<(String, BTreeMap<String, Vec<f64>>)>;

#[derive(Parser)]
struct Arguments {
    /// What the plot calls the model
    #[arg(long)]
    model: String,
    /// The llmrt binary
    #[arg(long)]
    llmrt: PathBuf,
    /// The compiled model
    #[arg(long)]
    artifact: PathBuf,
    /// A directory with llama-bench, llama-batched-bench and llama-completion
    #[arg(long)]
    llamacpp: Option<PathBuf>,
    /// Models for llama.cpp, each as LABEL=FILE
    #[arg(long)]
    gguf: Vec<String>,
    /// A Python that has openvino_genai
    #[arg(long)]
    openvino: Option<PathBuf>,
    /// The model for OpenVINO, as LABEL=PATH
    #[arg(long)]
    openvino_model: Option<String>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the plot goes
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut engines: Vec<Engine> = vec![Engine {
        name: "llmc bf16".to_owned(),
        measure: Box::new(Llmrt { binary: arguments.llmrt.clone(), artifact: arguments.artifact.clone() }),
    }];
    if let Some(binaries) = &arguments.llamacpp {
        for gguf in &arguments.gguf {
            let (label, file) = labelled(gguf)?;
            let measure = LlamaCpp { binaries: binaries.clone(), model: file.into() };
            engines.push(Engine { name: format!("llama.cpp {label}"), measure: Box::new(measure) });
        }
    }
    if let (Some(python), Some(model)) = (&arguments.openvino, &arguments.openvino_model) {
        let (label, path) = labelled(model)?;
        let measure = OpenVino { python: python.clone(), model: path.into() };
        engines.push(Engine { name: format!("OpenVINO {label}"), measure: Box::new(measure) });
    }
    let mut results: Results = engines.iter().map(|engine| (engine.name.clone(), BTreeMap::new())).collect();
    for round in 1..=arguments.rounds {
        for (engine, (name, values)) in engines.iter().zip(&mut results) {
            eprintln!("round {round} of {}: {name}", arguments.rounds);
            match engine.measure.round(arguments.threads) {
                Ok(found) => {
                    found.into_iter().for_each(|(metric, value)| values.entry(metric).or_default().push(value))
                }
                Err(error) => eprintln!("NOTICE: {name} is left out of this round: {error}"),
            }
        }
    }
    let title = format!(
        "{}, {} threads, medians of {} interleaved rounds",
        arguments.model, arguments.threads, arguments.rounds
    );
    println!("{title}\n\n{}", table(&results));
    if let Some(path) = &arguments.svg {
        std::fs::write(path, plot::svg(&title, &results)?)?;
        eprintln!("{}", path.display());
    }
    Ok(())
}

fn labelled(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=').ok_or_else(|| format!("`{text}` is not LABEL=PATH"))
}

/// The middle value, or the mean of the two middle ones; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// A value with as many digits as it deserves.
pub fn shown(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn table(results: &Results) -> String {
    let mut text = "| engine |".to_owned();
    METRICS.iter().for_each(|(name, unit, _)| text += &format!(" {name} ({unit}) |"));
    text += "\n|---|";
    METRICS.iter().for_each(|_| text += "---:|");
    for (engine, values) in results {
        text += &format!("\n| {engine} |");
        for (metric, ..) in METRICS {
            let value = values.get(metric).and_then(|values| median(values));
            text += &format!(" {} |", value.map_or("-".to_owned(), shown));
        }
    }
    text + "\n"
}
