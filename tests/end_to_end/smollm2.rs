//! SmolLM2-135M-Instruct gives the reference's logits, tokens and perplexity.

use super::support::binaries::{ids, json, llmrt};
use super::support::golden::{self, Prompt, assert_continues, floats};
use super::support::logits::{executor, logits, part, relative_error};
use super::support::models::{artifact, fixtures, smollm2};
use super::support::tiles::has_amx;
use llmc_artifact::Vocabulary;
use llmc_ir::dim::Bindings;
use llmc_ir::plan::Goal;
use llmrt::executor::{Executor, SampleRows, Step};
use llmrt::sampler::{Finds, Sampler, SamplingParams, argmax};
use llmrt::tokenizer::{AddSpecial, Tokenizer};
use serde_json::Value;
use std::ops::Range;
use std::path::PathBuf;

/// How far float32 logits may be from the reference's.
const LOGITS: f64 = 1e-4;
/// Where the reference is ahead by less than this, float32 may choose another token.
const F32_MARGIN: f64 = 1e-3;
/// The same for bf16.
const BF16_MARGIN: f64 = 0.25;

fn f32_artifact() -> PathBuf {
    artifact(&smollm2(), &["--dtype", "f32", "--max-context", "2048"])
}

fn bf16_artifact() -> PathBuf {
    artifact(&smollm2(), &[])
}

fn prompts() -> Vec<Prompt> {
    let golden = golden::file("smollm2.json");
    let prompts = golden["prompts"].as_array().unwrap().iter();
    prompts.map(|prompt| Prompt { json: prompt.clone(), ..Prompt::new(prompt, &prompt["float32"]) }).collect()
}

/// The rows of logits from the end of the prompt on, the golden text being fed in steps of these sizes.
fn fed(executor: &mut Executor, prompt: &Prompt, steps: &[usize]) -> Vec<Vec<f32>> {
    let tokens = [&prompt.ids[..], &prompt.greedy[..prompt.greedy.len() - 1]].concat();
    logits(executor, &tokens, steps).split_off(prompt.ids.len() - 1)
}

/// Looks at every golden token, also behind one that may legitimately differ.
fn assert_likeliest(what: &str, rows: &[Vec<f32>], prompt: &Prompt, margin: f64) {
    assert_eq!(rows.len(), prompt.greedy.len());
    for (at, row) in rows.iter().enumerate() {
        let (found, golden, ahead) = (argmax(row), prompt.greedy[at], prompt.margins[at]);
        assert!(found == golden || ahead <= margin, "{what}, token {at}: {found}, not {golden}, ahead by {ahead}");
    }
}

/// The twenty largest logits and the logarithm of the sum of all exponentials, against the reference's.
fn assert_top(what: &str, row: &[f32], top: &Value) {
    let (expected, values) = (ids(&top["ids"]), floats(&top["values"]));
    let found: Vec<f32> = expected.iter().map(|&id| row[id as usize]).collect();
    let error = relative_error(&found, &values);
    assert!(error <= LOGITS, "{what}: {error:.2e}");
    // No other token is larger than those: the reference's smallest, less what both may be off.
    let smallest = values[values.len() - 1] * (1.0 - 2.0 * LOGITS);
    let larger = row.iter().filter(|&&logit| f64::from(logit) > smallest).count();
    assert!(larger <= expected.len() + 1, "{what}: {larger} tokens reach the first twenty");
    let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
    assert!((sum.ln() - top["logsumexp"].as_f64().unwrap()).abs() <= 1e-3, "{what}: {}", sum.ln());
}

#[test]
fn f32_logits_and_tokens_are_the_reference_s() {
    let mut executor = executor(&f32_artifact(), 2);
    for prompt in prompts() {
        let what = prompt.json["name"].as_str().unwrap();
        // As generation does it, and cut into pieces that no program takes whole.
        for steps in [&[prompt.ids.len().min(512), 512, 1][..], &[33, 64]] {
            let rows = fed(&mut executor, &prompt, steps);
            assert_top(what, &rows[0], &prompt.json["float32"]["top20"]);
            assert_likeliest(what, &rows, &prompt, F32_MARGIN);
        }
    }
}

#[test]
fn bf16_finds_the_likeliest_tokens() {
    let mut executor = executor(&bf16_artifact(), 1);
    for prompt in prompts() {
        let what = prompt.json["name"].as_str().unwrap();
        for steps in [&[prompt.ids.len().min(512), 512, 1][..], &[33, 64]] {
            assert_likeliest(what, &fed(&mut executor, &prompt, steps), &prompt, BF16_MARGIN);
        }
    }
}

/// From text to text: the template, the tokenizer, sampling and streaming are in it.
#[test]
fn the_binary_continues_the_golden_prompts() {
    for (artifact, margin) in [(f32_artifact(), F32_MARGIN), (bf16_artifact(), BF16_MARGIN)] {
        for prompt in prompts() {
            let what = format!("{} with {}", prompt.json["name"], artifact.display());
            let text = prompt.json["text"].as_str().unwrap();
            let mut command = llmrt();
            command.arg("run").arg(&artifact).args(["--raw", "-p", text, "-n", "64", "--ignore-eos"]);
            let run = json(&mut command);
            assert_eq!(ids(&run["prompt_ids"]), prompt.ids, "{what}");
            assert_continues(&what, &ids(&run["ids"]), &prompt, margin);
        }
    }
}

#[test]
fn a_chat_prompt_goes_through_the_template_and_ends_with_the_stop_token() {
    let chat = &prompts()[2];
    let artifact = f32_artifact();
    let mut command = llmrt();
    let message = "Give me three short tips for learning a new language.";
    let run = json(command.arg("run").arg(&artifact).args(["-p", message, "-n", "64"]));
    assert_eq!(ids(&run["prompt_ids"]), chat.ids);
    let mut command = llmrt();
    let run = json(command.arg("run").arg(&artifact).args(["-p", "What is the capital of France?"]));
    assert_eq!(run["finish_reason"], "stop");
    assert_eq!(ids(&run["ids"]).last(), Some(&2), "the stop token is among the ids");
    assert_eq!(run["text"], "The capital of France is Paris.");
}

#[test]
fn bf16_perplexity_is_within_half_a_percent_of_float32() {
    let golden = &golden::file("smollm2.json")["perplexity"];
    let text = fixtures().join("golden/text.txt");
    let mut command = llmrt();
    command.arg("eval").arg(bf16_artifact()).arg("--file").arg(&text).args(["--window", "512", "--windows", "16"]);
    // Other tests need the other CPUs.
    command.args(["--threads", "1"]);
    let eval = json(&mut command);
    assert_eq!(eval["tokens"], 16 * 511);
    let (found, expected) = (eval["perplexity"].as_f64().unwrap(), golden["float32"]["perplexity"].as_f64().unwrap());
    assert!((found / expected - 1.0).abs() <= 0.005, "{found}, expected {expected}");
    assert!((eval["nll"].as_f64().unwrap().exp() - found).abs() <= 1e-9 * found);
}

#[test]
fn f32_perplexity_is_the_reference_s() {
    let golden = &golden::file("smollm2.json")["perplexity"];
    let text = fixtures().join("golden/text.txt");
    let mut command = llmrt();
    command.arg("eval").arg(f32_artifact()).arg("--file").arg(&text).args(["--window", "512", "--windows", "2"]);
    command.args(["--threads", "1"]);
    let windows = floats(&golden["float32"]["nll_per_window"]);
    let expected = (windows[0] + windows[1]) / 2.0;
    let found = json(&mut command)["nll"].as_f64().unwrap();
    assert!((found / expected - 1.0).abs() <= 1e-5, "{found}, expected {expected}");
}

/// The vocabulary is taken out of tokenizer.json when it goes into the artifact.
#[test]
fn a_vocabulary_in_parts_gives_the_same_tokens() {
    let json = std::fs::read(smollm2().join("tokenizer.json")).unwrap();
    let (vocabulary, rest) = Vocabulary::split(&json).expect("SmolLM2's tokenizer is plain BPE");
    let vocabulary = vocabulary.to_bytes();
    let parts = || Tokenizer::from_parts(&rest, &vocabulary).unwrap();
    let whole = Tokenizer::from_bytes(&json).unwrap();
    let same = |parts: &Tokenizer, text: &str| {
        for special in [AddSpecial::AsConfigured, AddSpecial::Never] {
            assert_eq!(parts.encode(text, special).unwrap(), whole.encode(text, special).unwrap(), "{text}");
        }
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["README.md", "ARCHITECTURE.md", "src/model.rs", "x", "tests/fixtures/golden/README.md"];
    for file in files {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        // At once, and in pieces that are few words to a new tokenizer.
        same(&parts(), &text);
        for lines in text.split_inclusive('\n').collect::<Vec<_>>().chunks(16) {
            same(&parts(), &lines.concat());
        }
    }
    let odd = "<|im_start|>user\nGrüße, 日本語 🙂 \u{0} \t\t    12345<|im_end|><|endoftext|>";
    let long = ["=".repeat(500), "supercalifragilisticexpialidocious".repeat(3), " ".repeat(31), " ".repeat(200)];
    for text in long.iter().map(String::as_str).chain([odd, "", " ", "a"]) {
        same(&parts(), text);
    }
}

/// What a step lists of its logits is what tokens are drawn from, and the logits can still be had.
fn candidates_do(executor: &mut Executor, step: &Step, rows: &[Vec<f32>]) {
    let params = SamplingParams { temperature: 0.8, top_k: Some(40), top_p: Some(0.95), ..SamplingParams::default() };
    assert_eq!(executor.finds(), Finds::Some { most: 80 });
    let found = executor.candidates(step, &vec![1.0; rows.len()]).unwrap().expect("decode programs list them");
    let samplers = (0..).map(|seed| Sampler::new(&SamplingParams { seed, ..params.clone() }));
    let mut clear = 0;
    for ((found, row), mut sampler) in found.iter().zip(rows).zip(samplers) {
        assert!(sampler.may_do_with(executor.finds()));
        if let Some(token) = sampler.clone().sample_found(found, &[]) {
            assert_eq!(token, sampler.sample(row, &[]));
            clear += 1;
        }
    }
    assert!(clear * 50 >= rows.len() * 49, "{clear} of {} rows were clear", rows.len());
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(executor.row(index).unwrap(), row);
    }
}

/// Greedy steps of any number of sequences find the first of the largest logits, and on CPUs that multiply 8-bit numbers they do
/// so by rounded weights.
#[test]
fn greedy_steps_find_what_all_logits_say() {
    let mut executor = executor(&bf16_artifact(), 2);
    let text: Vec<u32> = prompts().into_iter().flat_map(|prompt| [prompt.ids, prompt.greedy].concat()).collect();
    for sequences in [1, 2, 5, 12, 13, 16, 17, 40, 64] {
        let tokens =
            |sequence: usize| -> Vec<u32> { text.iter().cycle().skip(5 * sequence).take(4).copied().collect() };
        let parts = |range: Range<usize>, sample: SampleRows| Step {
            sequences: (0..sequences)
                .map(|sequence| part(&tokens(sequence)[range.clone()], range.start, sequence, sample))
                .collect(),
        };
        executor.run(&parts(0..3, SampleRows::None)).unwrap();
        let step = parts(3..4, SampleRows::Last);
        let found = executor.likeliest(&step).unwrap();
        let logits = executor.run(&step).unwrap();
        let rows: Vec<Vec<f32>> = (0..logits.rows()).map(|row| logits.row(row).to_vec()).collect();
        let expected: Vec<u32> = rows.iter().map(|row| argmax(row)).collect();
        assert_eq!(found, expected, "{sequences} sequences");
        candidates_do(&mut executor, &step, &rows);
        let sizes = Bindings { tokens: sequences, samples: sequences, sequences, context: 4 };
        let program = executor.program_for(&sizes).unwrap().name.clone();
        let program = executor.plan().programs.iter().position(|other| other.name == program).unwrap();
        let (has_vnni, has_avx512) = (is_x86_feature_detected!("avx512vnni"), is_x86_feature_detected!("avx512bw"));
        let most = match (has_vnni, has_avx512, is_x86_feature_detected!("avx2")) {
            // Tiles multiply the heads of programs for several rows, and round none.
            (true, ..) if has_amx() => 1,
            (true, ..) | (false, false, true) => 64,
            // Where more instructions take as many products, on as many ports, it pays for fewer rows.
            (false, true, _) => 10,
            (false, false, false) => 0,
        };
        let goal = executor.greedy_goal(program, sequences);
        assert_eq!(goal == Goal::Search, sequences <= most, "{sequences} sequences: {goal:?}");
    }
}
