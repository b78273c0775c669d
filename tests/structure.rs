//! The rules of the project's structure (ARCHITECTURE.md), checked on what cargo says and on the sources.

use serde_json::Value;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each crate and the workspace's crates that it may build on. Everything points toward `llmc-ir`.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("llmc-ir", &[]),
    ("llmc-console", &[]),
    ("llmc-limits", &[]),
    ("llmc-models", &["llmc-ir"]),
    ("llmc-passes", &["llmc-ir"]),
    ("llmc-codegen", &["llmc-ir"]),
    ("llmc-artifact", &["llmc-ir"]),
    ("llmrt", &["llmc-ir", "llmc-artifact", "llmc-console", "llmc-limits"]),
    (
        "llmc",
        &["llmc-ir", "llmc-artifact", "llmc-console", "llmc-limits", "llmc-models", "llmc-passes", "llmc-codegen"],
    ),
];

/// Libraries that stay behind one wall each: the crate that may depend on them, and the only place whose sources may
/// name them.
const WALLS: [(&str, &str, &str); 4] = [
    ("petgraph", "llmc-ir", "ir/src/graph.rs"),
    ("egg", "llmc-passes", "passes/src/eqsat/"),
    ("inkwell", "llmc-codegen", "codegen/src/llvm/"),
    ("cudarc", "llmrt", "runtime/src/device/cuda"),
];

/// What must not reach the runtime, whatever the path.
const NOT_IN_RUNTIME: [&str; 5] = ["inkwell", "llvm-sys", "llmc-codegen", "llmc-passes", "llmc-models"];

/// Where `unsafe` is allowed: the borders to devices, mapped files and C libraries.
const UNSAFE: [&str; 8] = [
    "codegen/src/llvm/disassembler.rs",
    "models/src/checkpoint/mod.rs",
    "models/src/gguf/mod.rs",
    "runtime/artifact/src/",
    "runtime/console/src/signals.rs",
    "runtime/limits/src/",
    "runtime/src/device/",
    "src/tune/",
];

/// Lines that a source file may have. Most have half as many; what grows beyond is two ideas.
const LONGEST_FILE: usize = 600;

#[test]
fn dependencies_point_toward_the_ir() {
    let workspace = Workspace::read();
    let known: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for member in workspace.members() {
        let name = member.name.as_str();
        let Some((_, allowed)) = MAY_USE.iter().find(|(crate_name, _)| *crate_name == name) else {
            if !member.is_test_only {
                wrong.push(format!("{name} is not in this test's table MAY_USE; say there what it may build on"));
            }
            continue;
        };
        for dependency in &member.dependencies {
            // What the root package's tests build on is not part of the compiler.
            let tests_of_all = name == "llmc" && dependency.kind == Kind::Development;
            let used = dependency.name.as_str();
            if known.contains(used) && !allowed.contains(&used) && !tests_of_all && used != name {
                wrong.push(format!("{name} depends on {used}, but may only build on {allowed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn libraries_stay_behind_their_walls() {
    let workspace = Workspace::read();
    let mut wrong = Vec::new();
    for (library, owner, place) in WALLS {
        for member in workspace.members() {
            if member.name != owner && member.dependencies.iter().any(|dependency| dependency.name == library) {
                wrong.push(format!("{} depends on {library}, which only {owner} may do", member.name));
            }
        }
        for (path, text) in sources() {
            if !path.starts_with(place) && code_lines(&text).any(|line| names(line, library)) {
                wrong.push(format!("{path} names {library}, which only {place} may do"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_runtime_has_no_compiler_in_it() {
    let reached = Workspace::read().reachable_from("llmrt");
    assert!(reached.contains_key("tokenizers"), "the walk over dependencies found too little: {reached:?}");
    for unwanted in NOT_IN_RUNTIME {
        assert!(!reached.contains_key(unwanted), "llmrt reaches {unwanted} through {}", path_to(&reached, unwanted));
    }
}

#[test]
fn the_compiler_has_its_compiler_in_it() {
    // Shows that the test above would notice.
    let reached = Workspace::read().reachable_from("llmc");
    assert!(NOT_IN_RUNTIME.iter().all(|crate_name| reached.contains_key(*crate_name)), "{reached:?}");
}

#[test]
fn files_say_their_idea_and_are_short() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let says = text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > "//! ".len());
        if !says {
            wrong.push(format!("{path}: the first line must say the file's idea: //! ..."));
        }
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            wrong.push(format!("{path}: {lines} lines are more than {LONGEST_FILE}; split it by ideas"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stays_at_the_borders() {
    let has_unsafe = |text: &str| {
        code_lines(text).any(|line| ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|form| line.contains(form)))
    };
    let found: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| {
            let is_shipped = path.starts_with("src/") || (path.contains("/src/") && !path.starts_with("tests/"));
            is_shipped && has_unsafe(text)
        })
        .map(|(path, _)| path)
        .collect();
    let stray: Vec<_> = found.iter().filter(|path| !UNSAFE.iter().any(|place| path.starts_with(place))).collect();
    assert!(stray.is_empty(), "unsafe code outside of {UNSAFE:?}: {stray:?}");
    for place in UNSAFE {
        assert!(
            found.iter().any(|path| path.starts_with(place)),
            "{place} has no unsafe code any more: take it off the list"
        );
    }
}

/// A package and what it depends on.
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
    /// Whether it lies under `tests/`.
    is_test_only: bool,
}

struct Dependency {
    name: String,
    kind: Kind,
}

#[derive(PartialEq, Eq)]
enum Kind {
    /// In what users run, or in the making of it.
    Shipped,
    Development,
}

/// What `cargo metadata` says.
struct Workspace {
    metadata: Value,
}

impl Workspace {
    fn read() -> Workspace {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(root())
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        Workspace { metadata: serde_json::from_slice(&output.stdout).expect("cargo writes JSON") }
    }

    fn members(&self) -> Vec<Package> {
        let ids: BTreeSet<&str> = array(&self.metadata["workspace_members"]).iter().map(text).collect();
        let packages = array(&self.metadata["packages"]).iter().filter(|package| ids.contains(text(&package["id"])));
        let members: Vec<Package> = packages.map(package).collect();
        assert!(members.len() >= MAY_USE.len(), "cargo knows {} members", members.len());
        members
    }

    /// All packages that end up in a package, each with the one through which it was found first.
    fn reachable_from(&self, start: &str) -> BTreeMap<String, String> {
        let packages = array(&self.metadata["packages"]);
        let name_of: BTreeMap<&str, &str> = packages.iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let nodes: BTreeMap<&str, &Value> =
            array(&self.metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
        let members = array(&self.metadata["workspace_members"]);
        let first = members.iter().map(text).find(|id| name_of[id] == start);
        let mut reached = BTreeMap::from([(start.to_owned(), String::new())]);
        let mut rest = vec![first.expect("the package exists")];
        while let Some(id) = rest.pop() {
            for dependency in array(&nodes[id]["deps"]) {
                let kinds = array(&dependency["dep_kinds"]);
                if kinds.iter().all(|kind| kind["kind"] == "dev") {
                    continue;
                }
                let id_of_dependency = text(&dependency["pkg"]);
                let name = name_of[id_of_dependency].to_owned();
                if let Entry::Vacant(entry) = reached.entry(name) {
                    entry.insert(name_of[id].to_owned());
                    rest.push(id_of_dependency);
                }
            }
        }
        reached
    }
}

fn package(package: &Value) -> Package {
    let dependencies = array(&package["dependencies"]).iter().map(|dependency| Dependency {
        name: text(&dependency["name"]).to_owned(),
        kind: match dependency["kind"].as_str() {
            Some("dev") => Kind::Development,
            _ => Kind::Shipped,
        },
    });
    Package {
        name: text(&package["name"]).to_owned(),
        dependencies: dependencies.collect(),
        is_test_only: Path::new(text(&package["manifest_path"])).starts_with(root().join("tests")),
    }
}

/// `llmrt > a > b > unwanted`, for messages.
fn path_to(reached: &BTreeMap<String, String>, name: &str) -> String {
    let mut path = name.to_owned();
    let mut current = name;
    while let Some(parent) = reached.get(current).filter(|parent| !parent.is_empty()) {
        path = format!("{parent} > {path}");
        current = parent;
    }
    path
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array in cargo's metadata")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string in cargo's metadata")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust sources: path from the root, and content.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest: Vec<PathBuf> =
        ["ir", "models", "passes", "codegen", "runtime", "src", "tests"].iter().map(|top| root().join(top)).collect();
    while let Some(directory) = rest.pop() {
        for entry in fs::read_dir(&directory).expect("source directories can be read") {
            let path = entry.expect("source directories can be read").path();
            if path.is_dir() {
                rest.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let path = path.strip_prefix(root()).expect("it is below the root").to_string_lossy().into_owned();
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 100, "only {} sources found", found.len());
    found
}

/// Lines without those that are comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

/// Whether a line of code names a library: `library::...`, not `my_library::...`.
fn names(line: &str, library: &str) -> bool {
    line.match_indices(&format!("{library}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}
