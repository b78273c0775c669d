//! `llmc explain`: the report of a tiny model is complete, the same in every run, and a page that no name can break.

use llmc::compile::{Outcome, Request, compile};
use llmc::explain::report::{Report, Timing};
use llmc::explain::{explain, explain_for, page, text};
use llmc::model::Model;
use llmc::tune::Tunings;
use llmc_artifact::Artifact;
use llmc_codegen::gpu::GpuTarget;
use llmc_codegen::host::HostTarget;
use llmc_ir::dtype::DType;
use llmc_ir::machine::{Machine, Machines, Processor};
use llmc_passes::pipeline::Options;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A name that would be markup if nobody cared.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\u{2028}&amp;\"'";

fn compile_tiny(directory: &Path, without: &[&str]) -> PathBuf {
    compile_for(directory, without, ["host", "a100"])
}

fn machines_named(names: &[&str]) -> Machines {
    Machines::new(names.iter().map(|name| Machine::named(name).unwrap()).collect()).unwrap()
}

/// The tiny Llama compiled for a CPU that does not depend on this machine.
fn compile_for(directory: &Path, without: &[&str], machines: [&str; 2]) -> PathBuf {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/llama");
    let model = Model::load(&checkpoint, DType::BF16).unwrap();
    let request = Request {
        targets: vec![HostTarget::named("x86-64-v3").unwrap()],
        gpus: vec![GpuTarget::parse("cuda:sm_80").unwrap()],
        max_context: None,
        max_batch: 64,
        machines: machines_named(&machines),
        passes: Options { without: without.iter().map(ToString::to_string).collect(), ..Options::default() },
        tuning: Tunings::Defaults,
        dump: None,
    };
    let path = directory.join("tiny.llmc");
    let outcome = compile(&model, &request, &path, &mut |_| true).unwrap();
    assert!(matches!(outcome, Outcome::Written(_)));
    path
}

#[test]
fn device_kernels_are_listed_with_their_grids() {
    let report = explain(&Artifact::open(&tiny().1).unwrap()).unwrap();
    let [gpu] = &report.gpus[..] else { panic!("{:?}", report.gpus) };
    assert_eq!(gpu.name, "cuda:sm_80");
    let priced: Vec<_> = report.programs.iter().filter(|program| program.machine == "a100").collect();
    assert_eq!((gpu.programs.len(), report.programs.len()), (priced.len(), 2 * priced.len()));
    for (program, priced) in gpu.programs.iter().zip(priced) {
        assert_eq!((&program.name, program.kernels.len()), (&priced.name, priced.kernels.len()));
        let sum: usize = program.kernels.iter().map(|kernel| kernel.launches * kernel.grids.len()).sum();
        assert!(sum == program.launches && sum >= priced.launches, "{}: {sum} launches", program.name);
        for bracket in &program.brackets {
            assert!(0.0 < bracket.low_seconds && bracket.low_seconds < bracket.high_seconds, "{bracket:?}");
        }
    }
    let text = text::text(&report).unwrap();
    for part in
        ["GPU CODE cuda:sm_80", "nothing of this has run on hardware", "gpu_decode_1__", "(estimate)", "blocks of"]
    {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

fn tiny() -> &'static (TempDir, PathBuf) {
    static TINY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    TINY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = compile_tiny(directory.path(), &[]);
        (directory, path)
    })
}

fn report() -> Report {
    explain(&Artifact::open(&tiny().1).unwrap()).unwrap()
}

/// Without what differs between runs or between versions of LLVM, and without device kernels, of which there are many.
fn stable(mut report: Report) -> Report {
    report.timing = Timing::default();
    report.bytes = Some(0);
    report.targets.iter_mut().for_each(|target| target.bytes = 0);
    report.gpus.clear();
    let kernels = report.programs.iter_mut().flat_map(|program| &mut program.kernels);
    kernels.for_each(|kernel| kernel.code_bytes.clear());
    report
}

#[test]
fn the_text_says_what_happened() {
    insta::assert_snapshot!(text::text(&stable(report())).unwrap());
}

#[test]
fn but_for_times_every_report_is_the_same() {
    assert_eq!(stable(report()), stable(report()));
    let timing = report().timing;
    let parts: f64 = timing.passes.iter().map(|pass| pass.seconds + pass.instruments_seconds).sum();
    assert!(parts > 0.0 && parts <= timing.total_seconds * (1.0 + 1e-9), "{parts} of {}", timing.total_seconds);
}

#[test]
fn the_artifact_s_plan_comes_out_again() {
    let report = report();
    assert_eq!(report.notes, Vec::<String>::new());
    let names: Vec<&str> = report.phases.iter().map(|phase| phase.name).collect();
    assert_eq!(names, ["imported", "canonical", "specialized", "rewritten", "fused", "planned"]);
    for program in &report.programs {
        let launches: usize = program.kernels.iter().map(|kernel| kernel.launches).sum();
        assert_eq!(launches, program.launches, "{}", program.name);
        assert!(program.floor_bytes <= program.bytes, "{}", program.name);
        for kernel in program.kernels.iter().filter(|kernel| kernel.launches > 0) {
            assert!(kernel.price.seconds > 0.0 && kernel.price.bytes > 0.0, "{}: {kernel:?}", program.name);
            // No kernel computes faster than the machine.
            assert!(kernel.unit_flops <= kernel.peak * kernel.price.seconds * (1.0 + 1e-9), "{kernel:?}");
            assert_eq!(kernel.code_bytes.contains_key("x86-64-v3"), program.machine == "host", "{kernel:?}");
        }
    }
}

#[test]
fn nodes_know_where_they_come_from() {
    let report = report();
    let nodes = |phase: &str| {
        let phase = report.phases.iter().find(|other| other.name == phase).unwrap();
        let view = phase.views.iter().find(|view| view.function == "layer").unwrap();
        &report.graphs[view.graph].nodes
    };
    assert!(nodes("imported").iter().all(|node| node.origin == "definition"));
    let chosen = nodes("rewritten").iter().filter(|node| node.origin == "eqsat" && node.kind == "dot");
    let products = "queries, keys and values; attention's output; gate and up; down";
    assert_eq!(chosen.count(), 4, "each product is one that equality saturation chose: {products}");
    let kept = nodes("rewritten").iter().filter(|node| node.origin == "definition").count();
    assert!(kept > nodes("rewritten").len() / 2, "{kept}");
    // Fusion makes one region of a joined product, with a dot for each of the weights where they lie.
    let parted = nodes("fused").iter().filter(|node| node.origin == "fuse" && node.kind == "dot");
    assert!(parted.clone().count() > 0 && parted.into_iter().all(|node| node.region.is_some()));
}

#[test]
fn values_that_live_together_do_not_overlap_in_the_arena() {
    for program in report().programs {
        let arena = program.arena;
        assert!(!arena.buffers.is_empty());
        for (index, a) in arena.buffers.iter().enumerate() {
            assert!(a.first <= a.last && a.last < arena.launches.len() && a.offset + a.bytes <= arena.bytes, "{a:?}");
            for b in &arena.buffers[index + 1..] {
                let together = a.first < b.last && b.first < a.last;
                let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
                let same_place = (a.offset, a.bytes) == (b.offset, b.bytes);
                assert!(!together || apart || same_place, "{}: {a:?} and {b:?}", program.name);
            }
        }
    }
}

#[test]
fn it_says_what_was_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = compile_tiny(directory.path(), &["eqsat", "cse"]);
    let report = explain(&Artifact::open(&path).unwrap()).unwrap();
    assert_eq!(report.without, ["eqsat", "cse"]);
    assert!(report.saturation.is_empty());
    let text = text::text(&report).unwrap();
    assert!(text.contains("compiled without eqsat, cse") && text.contains("did not run"), "{text}");
    assert!(!text.contains("plans the model differently"), "{text}");
}

/// Everything that depends on the machines is other machines' then, whichever way they were named.
#[test]
fn another_machine_has_another_roof() {
    let machines = machines_named(&["host", "h100"]);
    let priced_anew = explain_for(&Artifact::open(&tiny().1).unwrap(), &machines).unwrap();
    let note = &priced_anew.notes[0];
    assert!(note.contains("compiled for host and a100") && note.contains("for host and h100"), "{note}");
    let directory = tempfile::tempdir().unwrap();
    let compiled = explain(&Artifact::open(compile_for(directory.path(), &[], ["host", "h100"])).unwrap()).unwrap();
    assert_eq!(compiled.notes, Vec::<String>::new());
    for report in [&priced_anew, &compiled] {
        // What code can do beside that is the target's.
        assert_eq!(report.machines.clone().with_block_float(None), machines);
        for machine in report.machines.iter() {
            let mut programs = report.programs.iter().filter(|program| program.machine == machine.name).peekable();
            assert!(programs.peek().is_some(), "there is no program for {}", machine.name);
            for kernel in programs.flat_map(|program| &program.kernels).filter(|kernel| kernel.launches > 0) {
                // A kernel lies under the roof of its unit: the machine's arithmetic, and its memory at that intensity.
                let rate = kernel.unit_flops / kernel.price.seconds;
                let bf16 = machine.matrix_flops.bf16;
                let in_blocks = machine.block_float.map_or(bf16, |rate| rate * bf16);
                let peaks = [bf16, machine.matrix_flops.f32, machine.vector_flops, in_blocks];
                assert!(peaks.contains(&kernel.peak), "{kernel:?}");
                // Attention multiplies what is in the cache, which is bf16 here as weights are.
                assert!(kernel.anchor != "attend" || kernel.peak == machine.matrix_flops.bf16, "{kernel:?}");
                assert!(
                    rate <= kernel.peak.min(kernel.intensity * machine.memory_bandwidth) * (1.0 + 1e-9),
                    "{kernel:?}"
                );
                assert!(kernel.price.seconds >= machine.launch_seconds, "{kernel:?}");
            }
        }
        let text = text::text(report).unwrap();
        assert!(
            text.contains("machine  h100: 3.35 TB/s") && text.contains(&machines.of(Processor::Gpu).unwrap().source),
            "{text}"
        );
    }
    let same = |report: Report| Report { notes: Vec::new(), targets: Vec::new(), ..stable(report) };
    assert_eq!(same(priced_anew), same(compiled));
}

#[test]
fn families_that_were_left_out_are_no_rules() {
    let directory = tempfile::tempdir().unwrap();
    let path = compile_tiny(directory.path(), &["merge"]);
    let report = explain(&Artifact::open(&path).unwrap()).unwrap();
    assert_eq!(report.notes, ["compiled without merge"]);
    assert!(report.rules.iter().all(|rule| rule.family != "merge") && !report.rules.is_empty());
    assert!(report.saturation.iter().all(|saturation| !saturation.fired.contains_key("merge-dots")));
}

#[test]
fn the_page_is_whole_and_asks_for_nothing() {
    let report = report();
    let page = page::page(&report).unwrap();
    assert!(!page.contains("{{"), "a placeholder was left");
    for scheme in ["http://", "https://"] {
        let foreign =
            page.match_indices(scheme).map(|(at, _)| &page[at..]).find(|url| !url.starts_with("http://www.w3.org/"));
        assert_eq!(foreign.map(|url| url.chars().take(80).collect::<String>()), None);
    }
    assert!(page.contains("default-src 'none'"));
    assert_eq!(data(&page), json(&report));
}

#[test]
fn hostile_names_stay_names() {
    let mut report = report();
    report.artifact = HOSTILE.to_owned();
    report.model.architecture = HOSTILE.to_owned();
    report.weights[0].name = HOSTILE.to_owned();
    report.programs[0].kernels[0].name = HOSTILE.to_owned();
    report.graphs[0].nodes[0].text = HOSTILE.to_owned();
    let page = page::page(&report).unwrap();
    assert!(!page.contains("<img") && !page.contains('\u{2028}'));
    let innocent = page::page(&self::report()).unwrap();
    assert_eq!(page.matches("</script>").count(), innocent.matches("</script>").count());
    assert_eq!(data(&page), json(&report));
    for script in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
        let own = page.rsplit_once("<script>").unwrap().1;
        assert!(!own.contains(script), "{script} would make markup of names");
    }
}

fn json(report: &Report) -> serde_json::Value {
    serde_json::from_str(&serde_json::to_string(report).unwrap()).unwrap()
}

/// The data in a page, as its script reads it.
fn data(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn the_command_writes_whole_pages_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html");
    let explain_to_page = |artifact: &Path| {
        Command::new(env!("CARGO_BIN_EXE_llmc")).arg("explain").arg(artifact).arg("-o").arg(&page).output().unwrap()
    };
    let output = explain_to_page(&tiny().1);
    assert!(output.status.success(), "{output:?}");
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written.starts_with("<!DOCTYPE html>") && written.trim_end().ends_with("</html>"));
    let before = std::fs::read(&tiny().1).unwrap();
    let mut onto_itself = Command::new(env!("CARGO_BIN_EXE_llmc"));
    let output = onto_itself.arg("explain").arg(&tiny().1).arg("-o").arg(&tiny().1).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(std::fs::read(&tiny().1).unwrap() == before);
    let no_artifact = directory.path().join("other.llmc");
    std::fs::write(&no_artifact, "text").unwrap();
    let output = explain_to_page(&no_artifact);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(std::fs::read_to_string(&page).unwrap(), written);
}
