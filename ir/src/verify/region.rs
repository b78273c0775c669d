//! Checks of fused functions.

use super::Report;
use super::function::verify_graph;
use crate::op::Op;
use crate::region::{Anchor, FusedFunction, Region, Source};
use crate::shape::Type;
use crate::text::{NodeNames, input_types, source_text, source_type};
use std::collections::{BTreeMap, BTreeSet};

/// Reports what is wrong with a fused function.
pub(super) fn verify(function: &FusedFunction, report: &mut Report) {
    report.enter(&format!("@{}", function.name));
    report.params(&function.params);
    report.distinct("regions", function.regions.iter().map(|region| region.name.as_str()));
    for (index, region) in function.regions.iter().enumerate() {
        verify_inputs(function, index, report);
        verify_body(region, report);
    }
    verify_caches(function, report);
    for (index, source) in function.results.iter().enumerate() {
        let name = format!("result {index}");
        match source {
            Source::Weight(_) | Source::Step(_) => {
                let message = format!("{} is returned, which no region computes", source_text(function, source));
                report.add(name, message, "return a parameter or an output");
            }
            _ => match source_type(function, source) {
                None => {
                    let message = format!("{} does not exist", source_text(function, source));
                    report.add(name, message, "return a parameter or an output");
                }
                Some(ty) => report.result_type(&name, &ty),
            },
        }
    }
}

fn verify_inputs(function: &FusedFunction, index: usize, report: &mut Report) {
    let region = &function.regions[index];
    let types = input_types(region);
    for (input, source) in region.inputs.iter().enumerate() {
        let name = format!("region @{}, %in{input}", region.name);
        let text = source_text(function, source);
        let Some(ty) = types.get(&input) else {
            report.add(name, format!("the body does not use {text}"), "leave the input out");
            continue;
        };
        if matches!(source, Source::Output { region, .. } if *region >= index) {
            let help = "order regions so that each comes behind what it needs";
            report.add(name, format!("{text} is not an output of an earlier region"), help);
            continue;
        }
        if region.anchor == Anchor::Weights && !matches!(source, Source::Weight(_)) {
            let message = format!("{text} is not known while compiling");
            report.add(name, message, "let regions of weights read weights only");
            continue;
        }
        match source_type(function, source) {
            None => report.add(name, format!("{text} does not exist"), "refer to a parameter or an output"),
            Some(actual) if actual != *ty => {
                let what = if matches!(source, Source::Weight(_)) { "elsewhere" } else { "there" };
                let message = format!("{text} is taken for {ty}, {what} it is {actual}");
                report.add(name, message, "give both the same type");
            }
            Some(_) => {}
        }
    }
}

fn verify_body(region: &Region, report: &mut Report) {
    let place = format!("region @{}", region.name);
    let prefix = format!("{place}, ");
    let names = NodeNames::of_region(region);
    verify_graph(&region.body, &names, &vec![None; region.inputs.len()], &prefix, report);
    let (mut dots, mut attends) = (0, 0);
    let mut types: BTreeMap<usize, &Type> = BTreeMap::new();
    for node in region.body.topological() {
        match region.body.op(node) {
            op @ (Op::Weight { .. } | Op::Step(_)) => {
                let help = "make it an input: bodies hold neither weights nor step inputs";
                report.add(format!("{prefix}{}", names.get(node)), format!("`{}` inside a body", op.name()), help);
            }
            Op::Input { index, ty } if *types.entry(*index).or_insert(ty) != ty => {
                let message = format!("input {index} has two types");
                report.add(format!("{prefix}{}", names.get(node)), message, "give both the same type");
            }
            Op::Dot { .. } => dots += 1,
            Op::Attend(_) => attends += 1,
            _ => {}
        }
    }
    let (fits, expected) = match region.anchor {
        Anchor::Rows => (dots == 0 && attends == 0, "neither dot nor attend"),
        Anchor::Dot => (dots > 0 && attends == 0, "a dot and no attend"),
        Anchor::Attend => (attends == 1 && dots == 0, "one attend and no dot"),
        Anchor::Weights => (attends == 0, "weights alone"),
    };
    if !fits {
        let message = format!("anchor `{}` means {expected}, found {dots} and {attends}", region.anchor.name());
        report.add(&*place, message, "choose another anchor or divide the region");
    }
    if region.outputs.is_empty() {
        report.add(&*place, "there is no output", "leave the region out");
    }
    let mut seen = BTreeSet::new();
    for (index, &node) in region.outputs.iter().enumerate() {
        if !region.body.contains(node) {
            let help = "replace outputs together with uses when a node is removed";
            report.add(&*place, format!("output {index} is not a node of the body"), help);
        } else if !seen.insert(node) {
            report.add(&*place, format!("output {index} is there twice"), "let its users share one output");
        }
    }
}

/// As within a graph: each state of a cache is written by at most one region, and then read by no other.
fn verify_caches(function: &FusedFunction, report: &mut Report) {
    let mut writers: BTreeMap<&Source, Vec<&str>> = BTreeMap::new();
    let mut readers: BTreeMap<&Source, Vec<&str>> = BTreeMap::new();
    for region in &function.regions {
        let body = &region.body;
        for node in body.topological() {
            let (Op::Input { index, .. }, Type::Kv(_)) = (body.op(node), body.ty(node)) else { continue };
            let Some(source) = region.inputs.get(*index) else { continue };
            for user in body.users(node) {
                let uses = if matches!(body.op(user), Op::KvWrite { .. }) { &mut writers } else { &mut readers };
                uses.entry(source).or_default().push(&region.name);
            }
        }
    }
    for (source, writers) in writers {
        let text = source_text(function, source);
        if writers.len() > 1 {
            let message = format!("this state of the cache is written by {}", writers.join(" and "));
            report.add(&*text, message, "let each write take the one before it");
        }
        if let Some(readers) = readers.get(source) {
            let (readers, writers) = (readers.join(" and "), writers.join(" and "));
            let message = format!("this state of the cache is read by {readers} although {writers} overwrites it");
            report.add(&*text, message, "read the last state of the chain");
        }
    }
}
