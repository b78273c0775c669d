//! A toy artifact with real native code and a byte-level tokenizer: what `toy.c` says.

use llmc_artifact::{
    ArtifactWriter, Entry, GenerationDefaults, HostCode, Manifest, TOKENIZER, TokenizerFacts, code_tensor_name,
};
use llmc_ir::dim::{Bindings, Bounds};
use llmc_ir::dtype::DType;
use llmc_ir::machine::Processor;
use llmc_ir::plan::{KvLayout, ModelFacts, Plan, Program, Work};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the vocabulary: bytes, `<s>` (256), `</s>` (257) and `<pad>` (258).
pub const VOCAB: usize = 259;
/// The end token.
pub const END: u32 = 257;
/// The most positions of a sequence.
pub const CONTEXT: usize = 96;

/// What the artifact holds besides code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tokenizer and a chat template.
    Chat,
    /// A tokenizer.
    Text,
    /// Neither.
    Bare,
}

/// Messages as `U:text|`, the reply after `A:`.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role[0] | upper }}:{{ m.content }}</s>{% endfor %}A:";

/// Writes an artifact into `directory`.
pub fn artifact(directory: &Path, kind: Kind) -> PathBuf {
    let code = compile(directory);
    let tokenizer = (kind != Kind::Bare).then(|| tokenizer_json().into_bytes());
    let facts = TokenizerFacts {
        chat_template: (kind == Kind::Chat).then(|| TEMPLATE.to_owned()),
        eos_token: Some("</s>".to_owned()),
        ..TokenizerFacts::default()
    };
    let target = HostCode {
        name: "x86-64".to_owned(),
        cpu_features: Vec::new(),
        tensor: code_tensor_name("x86-64"),
        scratch_bytes: 64,
    };
    let mut entries = vec![Entry::raw(target.tensor.clone(), code.len())];
    entries.extend(tokenizer.as_ref().map(|bytes| Entry::raw(TOKENIZER, bytes.len())));
    let manifest = Manifest {
        format_version: 0,
        compiler_version: "0.1.0".to_owned(),
        plan: plan(),
        targets: vec![target],
        cuda: Vec::new(),
        tokenizer: tokenizer.is_some().then_some(facts),
        generation: GenerationDefaults { eos_token_ids: vec![END], ..GenerationDefaults::default() },
        tensors: BTreeMap::new(),
    };
    let path = directory.join("toy.llmc");
    let mut writer = ArtifactWriter::create(&path, entries, manifest).unwrap();
    writer.write_entry(&code).unwrap();
    if let Some(bytes) = tokenizer {
        writer.write_entry(&bytes).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn compile(directory: &Path) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/toy.c");
    let object = directory.join("toy.so");
    let mut command = Command::new("cc");
    command.args(["-O1", "-shared", "-fPIC", "-nostdlib", "-o"]).arg(&object).arg(source);
    assert!(command.status().expect("the C compiler `cc` runs").success());
    std::fs::read(object).unwrap()
}

fn plan() -> Plan {
    let program = |name: &str, tokens, one_token_per_sequence| Program {
        name: name.to_owned(),
        processor: Processor::Cpu,
        bounds: Bounds {
            max: Bindings { tokens, samples: tokens, sequences: 4, context: CONTEXT },
            one_token_per_sequence,
        },
        arena_bytes: 64,
        functions: Vec::new(),
        calls: Vec::new(),
        work: Work { weight_bytes: 128, flops_per_token: 64, ..Work::default() },
        search: None,
    };
    Plan {
        model: ModelFacts {
            architecture: "ToyForCausalLM".to_owned(),
            dtype: DType::F32,
            vocab: VOCAB,
            hidden: 4,
            layers: 1,
            max_context: CONTEXT,
            max_batch: 4,
            parameters: 0,
        },
        kv: KvLayout { layers: 1, heads: 1, head_dim: 32, dtype: DType::F32 },
        weights: Vec::new(),
        programs: vec![program("decode", 4, true), program("prefill", 16, false)],
    }
}

/// A byte-level tokenizer without merges: a token per byte, and three special tokens.
fn tokenizer_json() -> String {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let mut vocab = Map::new();
    for byte in 0..256u32 {
        let code = if printable(&byte) { byte } else { others.next().unwrap() };
        vocab.insert(char::from_u32(code).unwrap().to_string(), json!(byte));
    }
    let special = |(offset, name): (usize, &&str)| {
        json!({"id": 256 + offset, "content": name, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let names = ["<s>", "</s>", "<pad>"];
    for (offset, name) in names.iter().enumerate() {
        vocab.insert((*name).to_owned(), json!(256 + offset));
    }
    let added: Vec<Value> = names.iter().enumerate().map(special).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": added, "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}
    })
    .to_string()
}
