//! A tiny GGUF writer, and the tiny models that the tests write with it.

/// A file in the making.
#[derive(Clone, Default)]
pub struct Writer {
    pairs: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    kind: u32,
    /// Outermost first.
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

pub const F32: u32 = 0;
pub const Q8_0: u32 = 8;
const ALIGNMENT: usize = 32;

impl Writer {
    /// Sets a metadata value, given as its type number and its bytes.
    pub fn raw(mut self, key: &str, kind: u32, bytes: &[u8]) -> Writer {
        self.pairs.retain(|(existing, _)| existing != key);
        self.pairs.push((key.to_string(), [&kind.to_le_bytes(), bytes].concat()));
        self
    }

    pub fn u32(self, key: &str, value: u32) -> Writer {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub fn f32(self, key: &str, value: f32) -> Writer {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub fn flag(self, key: &str, value: bool) -> Writer {
        self.raw(key, 7, &[u8::from(value)])
    }

    pub fn text(self, key: &str, value: &str) -> Writer {
        self.raw(key, 8, &text(value))
    }

    pub fn texts<S: AsRef<str>>(self, key: &str, values: &[S]) -> Writer {
        let bytes: Vec<u8> = values.iter().flat_map(|value| text(value.as_ref())).collect();
        self.array(key, 8, values.len(), &bytes)
    }

    pub fn i32s(self, key: &str, values: &[i32]) -> Writer {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len(), &bytes)
    }

    pub fn f32s(self, key: &str, values: &[f32]) -> Writer {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 6, values.len(), &bytes)
    }

    fn array(self, key: &str, element: u32, count: usize, bytes: &[u8]) -> Writer {
        self.raw(key, 9, &[&element.to_le_bytes(), (count as u64).to_le_bytes().as_slice(), bytes].concat())
    }

    /// Takes a key out.
    pub fn without(mut self, key: &str) -> Writer {
        self.pairs.retain(|(existing, _)| existing != key);
        self
    }

    /// Sets a tensor of f32.
    pub fn tensor(self, name: &str, shape: &[usize], values: &[f32]) -> Writer {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.blocks(name, F32, shape, &bytes)
    }

    /// Sets a tensor by its stored bytes.
    pub fn blocks(mut self, name: &str, kind: u32, shape: &[usize], bytes: &[u8]) -> Writer {
        let mut writer = std::mem::take(&mut self).without_tensor(name);
        writer.tensors.push(Tensor { name: name.into(), kind, shape: shape.into(), bytes: bytes.into() });
        writer
    }

    /// Takes a tensor out.
    pub fn without_tensor(mut self, name: &str) -> Writer {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// The file.
    pub fn finish(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            file.extend(text(key));
            file.extend(value);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            file.extend(text(&tensor.name));
            file.extend((tensor.shape.len() as u32).to_le_bytes());
            for &size in tensor.shape.iter().rev() {
                file.extend((size as u64).to_le_bytes());
            }
            file.extend(tensor.kind.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(data);
        file
    }
}

/// The sizes of the tiny models.
pub const HIDDEN: usize = 32;
pub const INTERMEDIATE: usize = 64;
pub const HEADS: usize = 4;
pub const KV_HEADS: usize = 2;
pub const HEAD_DIM: usize = 8;
pub const LAYERS: usize = 2;

/// Deterministic values around zero that differ from row to row and from tensor to tensor.
pub fn values(name: &str, count: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(12345u32, |state, byte| state.wrapping_mul(31).wrapping_add(u32::from(byte)));
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        })
        .collect()
}

/// A model with all its weights, but without a tokenizer; the embedding has `vocabulary` rows and is tied.
pub fn model(architecture: &str, vocabulary: usize) -> Writer {
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    let mut writer = Writer::default()
        .text("general.architecture", architecture)
        .u32(&key("block_count"), LAYERS as u32)
        .u32(&key("context_length"), 128)
        .u32(&key("embedding_length"), HIDDEN as u32)
        .u32(&key("feed_forward_length"), INTERMEDIATE as u32)
        .u32(&key("attention.head_count"), HEADS as u32)
        .u32(&key("attention.head_count_kv"), KV_HEADS as u32)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .f32(&key("rope.freq_base"), 10_000.0)
        .u32(&key("rope.dimension_count"), HEAD_DIM as u32);
    let mut add = |name: String, shape: &[usize]| {
        let values = values(&name, shape.iter().product());
        writer = std::mem::take(&mut writer).tensor(&name, shape, &values);
    };
    add("token_embd.weight".into(), &[vocabulary, HIDDEN]);
    add("output_norm.weight".into(), &[HIDDEN]);
    for layer in 0..LAYERS {
        let name = |leaf: &str| format!("blk.{layer}.{leaf}");
        add(name("attn_norm.weight"), &[HIDDEN]);
        add(name("ffn_norm.weight"), &[HIDDEN]);
        add(name("attn_q.weight"), &[HEADS * HEAD_DIM, HIDDEN]);
        add(name("attn_k.weight"), &[KV_HEADS * HEAD_DIM, HIDDEN]);
        add(name("attn_v.weight"), &[KV_HEADS * HEAD_DIM, HIDDEN]);
        add(name("attn_output.weight"), &[HIDDEN, HEADS * HEAD_DIM]);
        add(name("ffn_gate.weight"), &[INTERMEDIATE, HIDDEN]);
        add(name("ffn_up.weight"), &[INTERMEDIATE, HIDDEN]);
        add(name("ffn_down.weight"), &[HIDDEN, INTERMEDIATE]);
        if architecture == "qwen2" {
            add(name("attn_q.bias"), &[HEADS * HEAD_DIM]);
            add(name("attn_k.bias"), &[KV_HEADS * HEAD_DIM]);
            add(name("attn_v.bias"), &[KV_HEADS * HEAD_DIM]);
        }
    }
    writer
}

/// The 256 characters that stand for bytes in byte-level BPE, in the order of the bytes.
pub fn byte_characters() -> Vec<String> {
    let mut next = 256;
    (0..=255u32)
        .map(|byte| match byte {
            33..=126 | 161..=172 | 174..=255 => byte,
            _ => {
                next += 1;
                next - 1
            }
        })
        .map(|code| char::from_u32(code).expect("below the surrogates").to_string())
        .collect()
}

/// Adds a byte-level tokenizer: the bytes, a token per merge, then `specials` as control tokens.
pub fn byte_level(writer: Writer, pre: &str, merges: &[&str], specials: &[&str]) -> Writer {
    let mut tokens = byte_characters();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut kinds = vec![1; tokens.len()];
    tokens.extend(specials.iter().map(|special| special.to_string()));
    kinds.resize(tokens.len(), 3);
    writer
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", pre)
        .texts("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .texts("tokenizer.ggml.merges", merges)
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}
