//! Tests of the text form.

use super::*;

const MODULE: &str = r#"module @Example

func @embed() -> (f32[tokens, 8]) {
  %0 = weight "table"                                                : bf16[10, 8]
  %1 = step token_ids                                                : i32[tokens]
  %2 = gather %0, %1                                                 : bf16[tokens, 8]
  %3 = convert %2                                                    : f32[tokens, 8]
  return %3
}

func @layer.full(%x: f32[tokens, 8], %unused: f32[], %kv: kv<2 x 4, f32>) -> (f32[tokens, 8]) {
  %0 = const [1.0, -0.5, inf, NaN, 1e-5, 0.1, 3.4028235e38, 0x7ff8000000000001] : f32[8]
  %1 = const 3                                                       : i32[2*tokens]
  %2 = reshape %0                                                    : f32[1, 8]
  %3 = broadcast %2                                                  : f32[tokens, 8]
  %4 = select %6, %x, %3                                             : f32[tokens, 8]
  return %4
}

step {
  %x = call @embed()
  %logits = call @layer.full(%x, %x, kv 0) in "model.layers.0.\u{a}\"\\"
  call @embed()
}
"#;

const FUSED: &str = r#"program @decode {tokens <= 16, samples <= 16, sequences <= 16, context <= 2048, one_token_per_sequence}

fused module @Example

func @layer(%x: f32[tokens, 8], %kv: kv<2 x 4, f32>) -> (f32[tokens, 8], f32[1, 8]) {
  region @store: rows {
    %in0 = %kv                                                       : kv<2 x 4, f32>
    %in1 = %x                                                        : f32[tokens, 8]
    %in2 = weight "norm.weight"                                      : f32[8]
    %0 = kv_write %in0, %in1 {part = key}                            : kv<2 x 4, f32>
    %1 = kv_write %0, %in1 {part = value}                            : kv<2 x 4, f32>
    %2 = reshape %in2                                                : f32[1, 8]
    yield %1, %2
  }
  region @mix: attend {
    %in0 = %store#0                                                  : kv<2 x 4, f32>
    %in1 = %x                                                        : f32[tokens, 8]
    %0 = attend %in1, %in0 {heads = 2, kv_heads = 2, scale = 0.5, mask = window 7} : f32[tokens, 8]
    yield %0
  }
  return %mix#0, %store#1
}

step {
  %x, %logits = call @layer(%x, kv 0) in "model.layers.0."
}

program @prefill on gpu {tokens <= 512, samples <= 16, sequences <= 16, context <= 2048}

fused module @Example

step {
}
"#;

fn failure(text: &str) -> ParseError {
    match parse(text) {
        Ok(document) => panic!("this parsed:\n{}", print(&document)),
        Err(error) => error,
    }
}

#[test]
fn texts_print_as_they_were() {
    let module = MODULE.replace("select %6, %x, %3", "add %x, %3");
    let module = module.replace("%4 = add %x, %3   ", "%4 = add %x, %3");
    assert_eq!(print(&parse(FUSED).unwrap()), FUSED);
    let printed = print(&parse(&module).unwrap());
    assert_eq!(print(&parse(&printed).unwrap()), printed);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&printed), words(&module));
}

#[test]
fn comments_blanks_and_own_names_are_free() {
    let text = "module@M//c\nfunc@f(%a:f32[2],)";
    assert!(failure(text).message.contains("expected a value such as `%name`, found `)`"));
    let text = "module@M//c\nfunc@f(%a:f32[2])->(f32[2]){%sum=add%a,%a:f32[2]return%sum}step{%logits=call@f(%x)}";
    assert!(print(&parse(text).unwrap()).contains("  %0 = add %a, %a "));
}

#[test]
fn errors_say_where_what_and_what_instead() {
    let error = failure(MODULE);
    assert_eq!((error.line, error.column), (16, 15));
    assert_eq!(error.to_string(), "16:15: expected a value that is defined above, found `%6`");
    let module = MODULE.replace("%6", "%x");
    let error = failure(&module);
    assert!(error.message.starts_with("select: the condition must be bool"), "{error}");
    let module = MODULE.replace("select %6, %x, %3", "add %x, %3");
    assert!(parse(&module).is_ok());
    let broken = |from: &str, to: &str, message: &str| {
        assert!(module.contains(from), "{from}");
        let error = failure(&module.replacen(from, to, 1));
        assert!(error.message.contains(message), "{error}");
    };
    broken("add %x", "frobnicate %x", "expected an operation such as `add`, `dot` or `reshape`, found `frobnicate`");
    broken("bf16[tokens, 8]", "bf16[tokens, 9]", "the operands make this bf16[tokens, 8], not bf16[tokens, 9]");
    broken("bf16[10, 8]", "f64[10, 8]", "unknown element type `f64`");
    broken("[10, 8]", "[10, 99999999999999999999]", "an integer from 0 to 2^64 - 1");
    broken("[10, 8]", "[10, rows]", "expected a size or one of `tokens`");
    broken("%unused", "%x", "two parameters %x");
    broken("@layer.full", "@embed", "`@embed` is there already");
    broken("%3 = broadcast", "%2 = broadcast", "a name that no value has yet");
    broken("return %4", "return %4, %4", "1 result types, but 2 values");
    broken("-> (f32[tokens, 8])", "-> (f32[tokens, 7])", "result 0 is f32[tokens, 8], not f32[tokens, 7]");
    broken("kv 0", "kv -1", "an integer from 0");
    broken("\\u{a}", "\\n", "expected an escape");
    broken("step {", "", "`func` or `step`");
    broken("module @Example", "module Example", "expected the name of a module such as `@name`, found `Example`");
    broken("call @embed()\n}", "call @embed()\n", "found the end of the text");
    broken("call @embed()\n}", "call @embed()\n} 7", "expected `program` or the end of the text, found `7`");
    assert_eq!(failure("").to_string(), "1:1: expected `module @Name`, found the end of the text");
}

#[test]
fn errors_in_programs_and_regions() {
    let broken = |from: &str, to: &str, message: &str| {
        assert!(FUSED.contains(from), "{from}");
        let error = failure(&FUSED.replacen(from, to, 1));
        assert!(error.message.contains(message), "{error}");
    };
    broken("@prefill", "@decode", "`@decode` is there already");
    broken("%in1 = %x", "%in2 = %x", "expected `%in1`, found `%in2`");
    broken("%store#0 ", "%store#2 ", "an output of a region above");
    broken("%store#0 ", "%mix#0 ", "an output of a region above");
    broken("region @mix", "region @store", "`@store` is there already");
    broken(": attend", ": reduction", "expected one of `rows`, `dot`, `attend`, `weights`, found `reduction`");
    broken("kv<2 x 4, f32>\n    %in1", "kv<2 x 5, f32>\n    %in1", "%kv is kv<2 x 4, f32>, not kv<2 x 5, f32>");
    broken("fused module", "module", "expected a value such as `%0` or `return`");
    let last = FUSED.rfind("fused").unwrap();
    let mixed = format!("{}{}", &FUSED[..last], &FUSED[last + 6..]);
    assert!(failure(&mixed).message.contains("all fused or none"));
    let alone = &FUSED[FUSED.find("fused").unwrap()..];
    assert!(failure(alone).message.contains("needs a line `program"));
}

#[test]
fn hostile_sizes_are_errors() {
    for (ty, op) in [
        ("f32[18446744073709551615, 18446744073709551615]", "reshape %x"),
        ("f32[18446744073709551615]", "concat %x, %x {axis = 0}"),
        ("f32[tokens]", "attend %x, %x {heads = 18446744073709551615, kv_heads = 1, scale = 1, mask = causal}"),
        ("f32[2]", "slice %x {axis = 7, range = 3..1}"),
        ("f32[2]", "permute %x {order = [5, 5, 5]}"),
        ("f32[2]", "dot %x, %x {contract = [0] x [9], batch = 8}"),
        ("f32[2]", "concat {axis = 3}"),
        ("f32[2]", "add"),
        ("i32[]", "iota {axis = 3}"),
        ("f32[tokens, context]", "const 1.0"),
        ("kv<1 x 1, f32>", "weight \"x\""),
    ] {
        let text = format!("module @M func @f(%x: {ty}) -> () {{ %0 = {op} : {ty} return }} step {{}}");
        failure(&text);
    }
    let kv = "kv<18446744073709551615 x 3, f32>";
    let text =
        format!("module @M func @f(%x: {kv}) -> () {{ %0 = kv_write %x, %x {{part = key}} : {kv} return }} step {{}}");
    assert!(failure(&text).message.contains("too many"));
}
