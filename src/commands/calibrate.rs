//! `llmc calibrate`: this machine's limits, measured and stored for the cost model.

use super::interrupt;
use clap::Args;
use llmc::calibrate::{CalibrateError, Calibration, Effort, Hardware, Limit, Measurement, Place, SECONDS};
use llmc::calibrate::{calibrate as measure, describe};
use llmc::machine::{config_directory, stored};
use llmc_artifact::{check_writable, write_file};
use llmc_console::{CliError, output};
use llmc_ir::machine::Machine;
use serde::Serialize;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Measure what this machine can do at most, and store it for `--machine host`.
///
/// Memory is read with 1, 2, 4, ... and all threads; arithmetic is done by all threads, with operands from the first- and
/// second-level caches. From then on `llmc compile` and `llmc opt` decide by what was measured, not by the figures that
/// come with llmc. The machine should be idle meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  llmc calibrate
  llmc calibrate --bytes 270M
  llmc calibrate -o here.json && llmc compile MODEL --machine ./here.json")]
pub struct CalibrateArguments {
    /// Bytes of the weights of the model that matters (k, M and G are 1000, 1000^2 and 1000^3): its reading then decides
    /// on the memory's speed, as it is read again and again [default: what fits no cache]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    bytes: Option<u64>,
    /// Times that everything is measured; medians count
    #[arg(long, value_name = "N", default_value = "7")]
    rounds: NonZeroUsize,
    /// Store the description in this file instead [default: llmc/host.json in the user's configuration directory]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a JSON object with every value
    #[arg(long)]
    json: bool,
}

/// The least that can be called a model.
const LEAST_BYTES: u64 = 1_000_000;

fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match bytes {
        Some(bytes) if bytes >= LEAST_BYTES => Ok(bytes),
        _ => Err(format!("expected a number of bytes, {LEAST_BYTES} or more, as 270000000 or 270M")),
    }
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct CalibrateOutput<'a> {
    stored: &'a Path,
    machine: &'a Machine,
    #[serde(flatten)]
    calibration: &'a Calibration,
}

/// Runs the command.
pub fn calibrate(arguments: &CalibrateArguments) -> Result<(), CliError> {
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => default_output()?,
    };
    check_writable(&path).map_err(CliError::failure)?;
    let interrupted = interrupt::install()?;
    let effort =
        Effort { rounds: arguments.rounds.get(), seconds: SECONDS, memory_bytes: None, model_bytes: arguments.bytes };
    let bar = output::progress(0, "measuring {pos}/{len} {wide_bar} {eta}");
    let calibration = measure(&Hardware::here(), &effort, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !interrupted.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let calibration = calibration.map_err(|error| match error {
        CalibrateError::Memory { .. } => CliError::usage(error),
        CalibrateError::Interrupted => CliError::failure(error),
    })?;
    let disturbed = calibration.measurements.iter().filter(|measurement| measurement.is_disturbed()).count();
    if disturbed > 0 {
        output::note(&format!(
            "warning: in most rounds {disturbed} of {} measurements were worse than their best by a quarter and more: the \
             machine was busy; measure again when it is idle",
            calibration.measurements.len()
        ));
    }
    let machine = describe(&calibration);
    let text = serde_json::to_string_pretty(&machine).map_err(CliError::failure)? + "\n";
    write_file(&path, text.as_bytes()).map_err(CliError::failure)?;
    match arguments.json {
        true => output::print_json(&CalibrateOutput { stored: &path, machine: &machine, calibration: &calibration }),
        false => {
            let meaning = match arguments.output {
                Some(_) => "what --machine means by that path",
                None => "what --machine host means from now on, the default of llmc compile",
            };
            output::print(&format!("{}{}: {meaning}\n", report(&calibration), path.display()))
        }
    }
}

/// Where `--machine host` looks; the directory is made.
fn default_output() -> Result<PathBuf, CliError> {
    let config = config_directory()
        .ok_or_else(|| CliError::usage("there is no HOME to store the result in; name a file with -o"))?;
    let path = stored(&config);
    let directory = path.parent().unwrap_or(&config);
    std::fs::create_dir_all(directory).map_err(|error| {
        CliError::Failure(format!("cannot make {}: {error}; name a file elsewhere with -o", directory.display()))
    })?;
    Ok(path)
}

fn report(calibration: &Calibration) -> String {
    let header = ["limit", "by", "operands from", "threads", "median", "min .. max"].map(str::to_owned);
    let mut rows = vec![header];
    rows.extend(calibration.measurements.iter().map(row));
    let widths: Vec<usize> =
        (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = format!("{}, {}, {} threads\n\n", calibration.cpu, calibration.target, calibration.threads);
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column < 3 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (dashes, end) = if column < 3 { (*width, " ") } else { (width - 1, ": ") };
                let _ = write!(text, "| {}{end}", "-".repeat(dashes));
            }
            text.push_str("|\n");
        }
    }
    text.push('\n');
    for skipped in &calibration.skipped {
        let _ = writeln!(text, "not measured: {skipped}");
    }
    text
}

fn row(measurement: &Measurement) -> [String; 6] {
    let Measurement { limit, how, place, bytes, threads, median, values } = measurement;
    let operands = match place {
        Place::FirstLevel => "first-level cache".to_owned(),
        Place::SecondLevel => "second-level cache".to_owned(),
        Place::Memory => format!("memory, {:.2} GB", *bytes as f64 / 1e9),
        Place::Nowhere => String::new(),
    };
    let (scale, unit) = match limit {
        Limit::Reads => (1e-9, "GB/s"),
        Limit::Barrier => (1e9, "ns"),
        Limit::F32Products
        | Limit::Bf16Products
        | Limit::BlockFloatProducts
        | Limit::Int8Products
        | Limit::Elementwise => (1e-9, "Gop/s"),
    };
    let shown = |value: f64| format!("{:.1}", scale * value);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    [
        limit.name().to_owned(),
        (*how).to_owned(),
        operands,
        threads.to_string(),
        format!("{} {unit}", shown(*median)),
        format!("{} .. {}", shown(least), shown(most)),
    ]
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("270M"), Ok(270_000_000));
        assert_eq!(parse_bytes("3G"), Ok(3_000_000_000));
        assert_eq!(parse_bytes("1000k"), Ok(1_000_000));
        assert_eq!(parse_bytes("1234567"), Ok(1_234_567));
        for wrong in ["", "M", "-1", "1.5G", "10", "99999999999999999999", "99999999999999G", "1T", "1 G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
