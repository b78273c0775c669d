//! Flags that several commands share.

use clap::Args;
use llmc_console::CliError;
use llmrt::device::DeviceChoice;
use llmrt::device::host::WeightPlace;
use llmrt::sampler::SamplingParams;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The model and how to run it.
#[derive(Debug, Args)]
pub struct ModelFlags {
    /// The compiled model
    #[arg(value_name = "ART")]
    pub artifact: PathBuf,
    /// Where to compute: host (the CPU), cuda:0 (the first NVIDIA GPU) and so on, or auto: the first GPU that the model
    /// was compiled for, or else the CPU
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads that compute on the CPU [default: one per CPU that the process may use]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where to keep weights for the CPU: mapped (in the file, whose pages processes share; nothing is read before it is
    /// used), copied (into this process's memory, in huge pages, which decodes faster), or auto: copied if twice the
    /// memory that they take is free [default: auto for chat and bench, else mapped]
    #[arg(long, value_name = "PLACE")]
    pub weights: Option<WeightPlace>,
    /// Memory of the KV cache, such as 512M or 4G [default: what the command needs]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub kv_memory: Option<u64>,
}

/// A number of bytes. With K, M, G or T behind it they are counted in powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = units.iter().find(|(letter, _)| text.to_ascii_uppercase().ends_with(*letter));
    let (number, shift) = unit.map_or((text, 0), |(_, shift)| (&text[..text.len() - 1], *shift));
    let wrong = || format!("`{text}` is no size: expected a number of bytes, or one with K, M, G or T behind it");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// How tokens are chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingFlags {
    /// Divides the logits; 0 always takes the likeliest token [default: 0, or 1 with --top-k,
    /// --top-p or --min-p]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the K likeliest tokens; 0 is all
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the fewest tokens whose probabilities sum to P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Choose among tokens with at least P times the likeliest one's probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make tokens that have occurred less likely; 1 does nothing
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Equal seeds give equal text
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

impl SamplingFlags {
    /// The parameters, checked. The model's own recommendations are not applied: what is computed
    /// depends on the command line alone.
    pub fn params(&self) -> Result<SamplingParams, CliError> {
        let samples = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let params = SamplingParams {
            temperature: self.temperature.unwrap_or(if samples { 1.0 } else { 0.0 }),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        params.validate().map_err(CliError::usage)?;
        Ok(params)
    }
}

/// The most tokens of a reply as `-n` says; without it the model and its context are the limit.
pub fn max_tokens(flag: Option<usize>) -> Result<usize, CliError> {
    match flag {
        Some(0) => Err(CliError::usage("-n is 0, but must be at least 1: nothing would be generated")),
        Some(tokens) => Ok(tokens),
        None => Ok(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("1000"), Ok(1000));
        assert_eq!((parse_size("2K"), parse_size("512M"), parse_size("3g")), (Ok(2048), Ok(512 << 20), Ok(3 << 30)));
        for text in ["", "M", "-1", "1.5G", "1GB", "99999999999T"] {
            assert!(parse_size(text).unwrap_err().contains(&format!("`{text}`")), "{text}");
        }
    }
}
