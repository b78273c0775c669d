//! Every type against vectors computed by the `gguf` Python package, bit for bit.

use serde_json::Value;

use super::*;

/// Per type name: `blocks`, hexadecimal bytes; `values`, the f32 bits of their elements as hexadecimal words.
const VECTORS: &str = include_str!("../../../testdata/gguf_quants.json");

fn hex(text: &Value, digits: usize) -> Vec<u32> {
    let text = text.as_str().expect("vectors are strings").as_bytes();
    text.chunks(digits)
        .map(|digits| u32::from_str_radix(str::from_utf8(digits).expect("ASCII"), 16).expect("hexadecimal"))
        .collect()
}

#[test]
fn every_type_is_bit_equal_to_the_reference() {
    let vectors: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    for traits in &TRAITS {
        let vector = &vectors[traits.name];
        let blocks: Vec<u8> = hex(&vector["blocks"], 2).into_iter().map(|byte| byte as u8).collect();
        let mut values = Vec::new();
        traits.kind.dequantize(&blocks, &mut values);
        assert_eq!(values.len(), blocks.len() / traits.block_bytes * traits.block_elements, "{}", traits.name);
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits, hex(&vector["values"], 8), "{}", traits.name);
    }
}

#[test]
fn the_table_is_in_the_order_of_the_enum() {
    for traits in &TRAITS {
        assert_eq!(traits.kind.traits().code, traits.code);
        assert_eq!(TensorType::from_code(traits.code), Ok(traits.kind));
    }
    assert_eq!(TensorType::from_code(16), Err("IQ2_XXS".to_string()));
    assert_eq!(TensorType::from_code(77), Err("number 77".to_string()));
}
