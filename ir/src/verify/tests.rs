//! Tests of the verifier: a sound document, and one broken in each way.

use super::*;
use crate::graph::NodeId;
use crate::module::{Argument, Call};
use crate::op::{BinaryOp, KvPart, Op, UnaryOp};
use crate::region::{Anchor, Source};
use crate::text::parse;

const MODULE: &str = r#"module @M
func @layer(%x: f32[tokens, 8], %kv: kv<2 x 4, f32>) -> (f32[tokens, 8]) {
  %0 = kv_write %kv, %x {part = key} : kv<2 x 4, f32>
  %1 = kv_write %0, %x {part = value} : kv<2 x 4, f32>
  %2 = attend %x, %1 {heads = 2, kv_heads = 2, scale = 0.5, mask = causal} : f32[tokens, 8]
  return %2
}
func @embed() -> (f32[tokens, 8]) {
  %0 = weight "/table" : f32[10, 8]
  %1 = step token_ids : i32[tokens]
  %2 = gather %0, %1 : f32[tokens, 8]
  return %2
}
func @head(%x: f32[tokens, 8]) -> (f32[samples, 10]) {
  %0 = step sample_rows : i32[samples]
  %1 = gather %x, %0 : f32[samples, 8]
  %2 = weight "/table" : f32[10, 8]
  %3 = dot %1, %2 {contract = [1] x [1]} : f32[samples, 10]
  return %3
}
step {
  %x = call @embed()
  %x = call @layer(%x, kv 0) in "layers.0."
  %x = call @layer(%x, kv 1) in "layers.1."
  %logits = call @head(%x)
}
"#;

const FUSED: &str = r#"program @decode {tokens <= 4, samples <= 4, sequences <= 4, context <= 64, one_token_per_sequence}
fused module @M
func @all(%kv: kv<2 x 4, f32>) -> (f32[samples, 10]) {
  region @embed: rows {
    %in0 = weight "table" : f32[10, 8]
    %in1 = step token_ids : i32[tokens]
    %in2 = %kv : kv<2 x 4, f32>
    %0 = gather %in0, %in1 : f32[tokens, 8]
    %1 = kv_write %in2, %0 {part = key} : kv<2 x 4, f32>
    %2 = kv_write %1, %0 {part = value} : kv<2 x 4, f32>
    yield %0, %2
  }
  region @mix: attend {
    %in0 = %embed#0 : f32[tokens, 8]
    %in1 = %embed#1 : kv<2 x 4, f32>
    %0 = attend %in0, %in1 {heads = 2, kv_heads = 2, scale = 0.5, mask = causal} : f32[tokens, 8]
    yield %0
  }
  region @head: dot {
    %in0 = %mix#0 : f32[tokens, 8]
    %in1 = step sample_rows : i32[samples]
    %in2 = weight "table" : f32[10, 8]
    %0 = gather %in0, %in1 : f32[samples, 8]
    %1 = dot %0, %in2 {contract = [1] x [1]} : f32[samples, 10]
    yield %1
  }
  return %head#0
}
step {
  %logits = call @all(kv 0)
}
"#;

fn module() -> Module {
    match parse(MODULE).unwrap() {
        Document::Module(module) => module,
        other => panic!("{other:?}"),
    }
}

fn fused() -> FusedModule {
    match parse(FUSED).unwrap() {
        Document::Fused(mut programs) => programs.remove(0).module,
        other => panic!("{other:?}"),
    }
}

fn texts(diagnostics: Vec<Diagnostic>) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

fn broken(change: impl FnOnce(&mut Module)) -> String {
    let mut module = module();
    change(&mut module);
    texts(verify_module(&module, Promise::None))
}

fn broken_fused(change: impl FnOnce(&mut FusedModule)) -> String {
    let mut module = fused();
    change(&mut module);
    texts(verify_fused_module(&module, Promise::None))
}

fn node(module: &Module, function: usize, position: usize) -> NodeId {
    module.functions[function].graph.topological()[position]
}

#[test]
fn sound_documents_have_no_diagnostics() {
    assert_eq!(verify(&parse(MODULE).unwrap()), []);
    assert_eq!(verify(&parse(FUSED).unwrap()), []);
}

#[test]
fn all_mistakes_in_calls_are_reported() {
    let found = broken(|m| {
        m.calls[0].function = "embedding".into();
        m.calls[1].arguments = vec![Argument::Kv(0), Argument::Kv(0), Argument::Kv(7)];
        m.calls[2].arguments[0] = Argument::Value("y".into());
        m.calls[2].arguments[1] = Argument::Kv(4);
        m.calls[3].results = vec!["lo gits".into(), "lo gits".into()];
    });
    for expected in [
        "step, call 0 (@embedding): there is no such function; the module has embed, head, layer",
        "call 1 (@layer in \"layers.0.\"): 3 arguments for 2 parameters",
        "kv 0 is passed for %x, which is f32[tokens, 8]",
        "kv 0 is passed twice",
        "call 2 (@layer in \"layers.1.\"): no call before this one makes %y",
        "2 results are named, there are 1",
        "two results of a call are named `lo gits`",
        "`lo gits` is no name",
        "no call makes %logits",
        "KV caches are used without number 1",
    ] {
        assert!(found.contains(expected), "{expected}\n---\n{found}");
    }
}

#[test]
fn types_pass_through_the_step() {
    let found = broken(|m| m.calls[3].arguments[0] = Argument::Kv(0));
    assert!(found.contains("kv 0 is passed for %x"), "{found}");
    let found = broken(|m| m.calls[1].results[0] = "logits".into());
    assert_eq!(found, "");
    let found = broken(|m| m.calls.truncate(1));
    assert!(found.contains("no call makes %logits"), "{found}");
    let found = broken(|m| m.calls[3].function = "embed".into());
    assert!(found.contains("1 arguments for 0 parameters") && found.contains("%logits is f32[tokens, 8]"), "{found}");
    let again = |text: &str| text.replace("\"/table\" : f32[10, 8]\n  %3", "\"/table\" : f32[11, 8]\n  %3");
    let text = again(MODULE).replace("f32[samples, 10]", "f32[samples, 11]");
    let found = texts(verify(&parse(&text).unwrap()));
    assert!(found.contains("weight \"table\" is f32[11, 8] here and f32[10, 8] elsewhere"), "{found}");
    let found = broken(|m| {
        let call = Call { function: "head".into(), scope: String::new(), arguments: vec![], results: vec![] };
        m.calls.insert(1, call);
    });
    assert!(found.contains("0 arguments for 1 parameters"), "{found}");
}

#[test]
fn graphs_are_checked_again() {
    let found = broken(|m| {
        let table = node(m, 1, 0);
        m.functions[1].results[0] = table;
        m.functions[2].params[0].ty = Type::tensor(crate::dtype::DType::F32, &[3usize]);
    });
    assert!(found.contains("@head, %x = input: input 0 is taken for f32[tokens, 8], it is f32[3]"), "{found}");
    assert!(found.contains("call 1 (@layer in \"layers.0.\"): %x is f32[10, 8]"), "{found}");
    let shorten = |m: &mut Module| {
        let graph = &mut m.functions[2].graph;
        let gathered = graph.topological().into_iter().find(|&n| graph.op(n).name() == "gather").unwrap();
        let short = graph.add(Op::Slice { axis: 1, start: 0, end: 4 }, &[gathered]).unwrap();
        (gathered, short)
    };
    let found = broken(|m| {
        let (gathered, short) = shorten(m);
        m.functions[2].graph.replace_uses(gathered, short);
    });
    assert!(found.contains("@head: 2 nodes are on a cycle or behind one"), "{found}");
    let found = broken(|m| {
        let (gathered, short) = shorten(m);
        let graph = &mut m.functions[2].graph;
        let root = graph.add(Op::Unary(UnaryOp::Sqrt), &[gathered]).unwrap();
        graph.add(Op::Unary(UnaryOp::Sqrt), &[root]).unwrap();
        graph.replace_uses(root, short);
    });
    assert!(found.contains("its type is f32[samples, 8], its operands make it f32[samples, 4]"), "{found}");
    let found = broken(|m| {
        let removed = m.functions[1].results[0];
        let kept = node(m, 1, 0);
        assert_ne!(removed, kept);
        m.functions[1].graph.retain_reachable(&[kept]);
        m.functions[0].params.truncate(1);
    });
    assert!(found.contains("result 0 is not a node of the graph"), "{found}");
    assert!(found.contains("input 1 does not exist, there are 1"), "{found}");
}

#[test]
fn caches_are_chains() {
    let found = broken(|m| {
        let [x, kv] = [0, 1].map(|index| node(m, 0, index));
        let graph = &mut m.functions[0].graph;
        let write = graph.add(Op::KvWrite { part: KvPart::Key }, &[kv, x]).unwrap();
        let attend = graph.topological().into_iter().find(|&n| graph.op(n).name() == "attend").unwrap();
        let again = graph.op(attend).clone();
        graph.add(again, &[x, kv]).unwrap();
        m.functions[0].results.push(write);
    });
    assert!(found.contains("@layer, %kv: this state of the cache is written 2 times"), "{found}");
    assert!(found.contains("@layer, %kv: this state of the cache is read although"), "{found}");
    assert!(found.contains("a KV cache is returned"), "{found}");
}

#[test]
fn regions_are_checked() {
    let found = broken_fused(|m| {
        let function = &mut m.functions[0];
        function.regions[0].inputs.push(Source::Param(3));
        function.regions[0].anchor = Anchor::Attend;
        function.regions[1].inputs[1] = Source::Param(0);
        function.regions[1].inputs[0] = Source::Output { region: 2, output: 0 };
        function.regions[1].name = "embed".into();
        function.regions[2].inputs[0] = Source::Output { region: 0, output: 5 };
        function.regions[2].inputs[1] = Source::Param(0);
        let output = function.regions[2].outputs[0];
        function.regions[2].outputs.push(output);
        function.results = vec![Source::Weight("table".into()), Source::Output { region: 9, output: 0 }];
    });
    for expected in [
        "region @embed, %in3: the body does not use %?3",
        "anchor `attend` means one attend and no dot, found 0 and 0",
        "two regions are named `embed`",
        "%head#0 is not an output of an earlier region",
        "region @head, %in0: %embed#5 does not exist",
        "region @head, %in1: %kv is taken for i32[samples], there it is kv<2 x 4, f32>",
        "output 1 is there twice",
        "@all, %kv: this state of the cache is read by embed although embed overwrites it",
        "result 0: weight \"table\" is returned, which no region computes",
        "result 1: %?9#0 does not exist",
    ] {
        assert!(found.contains(expected), "{expected}\n---\n{found}");
    }
}

#[test]
fn bodies_are_checked() {
    let found = broken_fused(|m| {
        let body = &mut m.functions[0].regions[2].body;
        let weight = Op::Weight { name: "w".into(), ty: Type::tensor(crate::dtype::DType::F32, &[2usize]) };
        let weight = body.add(weight, &[]).unwrap();
        let root = body.add(Op::Unary(UnaryOp::Sqrt), &[weight]).unwrap();
        body.add(Op::Binary(BinaryOp::Add), &[root, weight]).unwrap();
        m.functions[0].regions[0].outputs.clear();
        m.functions[0].regions[1].anchor = Anchor::Rows;
    });
    assert!(found.contains("region @head, %2: `weight` inside a body"), "{found}");
    assert!(found.contains("region @embed: there is no output"), "{found}");
    assert!(found.contains("anchor `rows` means neither dot nor attend, found 0 and 1"), "{found}");
}

#[test]
fn promises_fit_bounds() {
    let text = FUSED.replace("samples <= 4", "samples <= 3");
    let found = texts(verify(&parse(&text).unwrap()));
    assert!(found.starts_with("program @decode, bounds: one token per sequence is promised"), "{found}");
}
