//! Modules: functions, in units that LLVM compiles by themselves.

use super::FunctionText;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of text that functions of a unit have together, at most. One that has more is a unit of its own.
const UNIT_BYTES: usize = 64 << 10;

/// The functions of a program's code. Each is compiled by itself: no function is part of another, and all that LLVM knows
/// of those it calls are their types. So it does not matter to its code which unit it is in.
#[derive(Debug, Default)]
pub struct ModuleText {
    functions: Vec<FunctionText>,
    /// What is said of functions by name, for devices.
    annotations: Vec<(String, String)>,
}

impl ModuleText {
    /// Says that blocks of a device kernel have this many threads, neither more nor less.
    pub fn set_block(&mut self, kernel: &str, threads: u32, resident: Option<u32>) {
        let mut annotate = |what: &str, value: u32| {
            self.annotations.push((kernel.to_owned(), format!("!{{ptr @{kernel}, !\"{what}\", i32 {value}}}")));
        };
        annotate("reqntidx", threads);
        if let Some(resident) = resident {
            annotate("minctasm", resident);
        }
    }

    /// Adds a finished function.
    pub fn add(&mut self, function: FunctionText) {
        self.functions.push(function);
    }

    /// Adds the function of a name that says all about it, unless it has it.
    pub fn add_once(&mut self, name: &str, write: impl FnOnce() -> FunctionText) {
        if self.functions.iter().all(|function| function.name != name) {
            self.add(write());
        }
    }

    /// The whole module as units, whose number follows from its functions alone; `attributes` become those of every
    /// function (attribute group 0).
    pub fn finish(self, triple: &str, attributes: &str) -> Vec<String> {
        let mut units: Vec<Vec<FunctionText>> = Vec::new();
        // The unit that small functions are added to, and its bytes.
        let mut open: Option<(usize, usize)> = None;
        for function in self.functions {
            let bytes = function.body.len();
            match open {
                Some((unit, others)) if others + bytes <= UNIT_BYTES => {
                    units[unit].push(function);
                    open = Some((unit, others + bytes));
                }
                _ => {
                    if bytes <= UNIT_BYTES {
                        open = Some((units.len(), bytes));
                    }
                    units.push(vec![function]);
                }
            }
        }
        units.iter().map(|functions| unit(functions, &self.annotations, triple, attributes)).collect()
    }
}

/// A unit's text.
fn unit(functions: &[FunctionText], annotations: &[(String, String)], triple: &str, attributes: &str) -> String {
    let own: BTreeSet<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    let needs: BTreeMap<&String, &String> = functions.iter().flat_map(|function| &function.needs).collect();
    let mut text = format!("target triple = \"{triple}\"\n");
    for FunctionText { header, body, .. } in functions {
        text += &format!("\n{header} {{\nentry:\n{body}}}\n");
    }
    text += "\n";
    for (_, line) in needs.iter().filter(|(name, _)| !own.contains(name.as_str())) {
        text += line;
        text += "\n";
    }
    text += &format!("\nattributes #0 = {{ {attributes} }}\n!0 = !{{}}\n");
    let annotations: Vec<&String> = annotations
        .iter()
        .filter(|(kernel, _)| own.contains(kernel.as_str()))
        .map(|(_, annotation)| annotation)
        .collect();
    if !annotations.is_empty() {
        let numbers: Vec<_> = (1..=annotations.len()).map(|number| format!("!{number}")).collect();
        text += &format!("!nvvm.annotations = !{{{}}}\n", numbers.join(", "));
    }
    for (index, annotation) in annotations.iter().enumerate() {
        text += &format!("!{} = {annotation}\n", index + 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Role, int};
    use super::*;

    /// A function of at least so many bytes that calls another and reads a constant.
    fn function(name: &str, callee: &str, bytes: usize) -> FunctionText {
        let (mut f, _) = FunctionText::new(Role::Kernel, name, &[]);
        let constant = f.constant("i8", &["1".to_owned()]);
        while f.body.len() < bytes {
            f.store(&int(1), &constant, 8);
        }
        f.call_local(callee, &[]);
        f.finish()
    }

    #[test]
    fn units_hold_each_function_once_and_declare_the_others() {
        let mut module = ModuleText::default();
        module.add(function("first", "second", 10));
        module.add(function("large", "first", UNIT_BYTES));
        module.add(function("second", "large", 10));
        module.add(function("third", "first", UNIT_BYTES - 100));
        module.set_block("second", 32, None);
        let units = module.finish("none", "nounwind");
        let defined = |unit: &String| {
            let names = unit.lines().filter_map(|line| line.strip_prefix("define hidden void @")?.split('(').next());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            units.iter().map(defined).collect::<Vec<_>>(),
            [vec!["first", "second"], vec!["large"], vec!["third"]]
        );
        let declares = |unit: usize, name: &str| units[unit].contains(&format!("declare hidden void @{name}()"));
        assert!(!declares(0, "second") && declares(0, "large") && declares(1, "first") && declares(2, "first"));
        for (unit, name) in [(0, "first"), (0, "second"), (1, "large"), (2, "third")] {
            assert_eq!(units[unit].matches(&format!("@{name}.constant.0 = private")).count(), 1);
        }
        assert!(units[0].contains("ptr @second, !\"reqntidx\"") && !units[1].contains("nvvm"));
    }
}
