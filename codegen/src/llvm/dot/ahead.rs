//! What a thread reads of a dot region's weights before its own loops prefetch: the beginning of its first panel. A step has it
//! prefetched while threads have yet to meet before the region.

use super::super::step_args::share;
use super::super::text::{FunctionText, Value, int};
use super::super::{KernelContext, KernelParams};
use super::panels;
use super::work::{Dot, Section};
use llmc_ir::op::DotMethod;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Emits a function with the kernel's parameters that prefetches it.
pub fn emit(f: &mut FunctionText, context: &mut KernelContext<'_>, params: &KernelParams) -> Result<(), String> {
    let parts = context.kernel.region.parts();
    let dot = Dot::of(context, &parts, None)?;
    let from = match context.method {
        DotMethod::SplitK => first_part(f, params, &dot)?,
        DotMethod::Gemm | DotMethod::Gemv | DotMethod::BlockFloat => {
            let work = dot.work(f, context, params)?;
            let block = f.binary("srem", &work.first, &int(work.column_blocks as i64));
            first_panel(f, params, &dot, block)?
        }
    };
    let bytes = context.target.tuning.prefetch_bytes as i64;
    f.for_each(&int(0), &int(bytes), LINE as i64, |f, byte| {
        let line = f.offset(&from, byte);
        f.prefetch_to_second_level(&line);
    });
    Ok(())
}

/// The address of the first panel of a column block, counted over all sections.
fn first_panel(f: &mut FunctionText, params: &KernelParams, dot: &Dot<'_>, block: Value) -> Result<Value, String> {
    let [first, others @ ..] = &dot.sections[..] else { return Err("a region without outputs".into()) };
    let mut address = panel(f, params, dot, first, &block);
    let (mut before, mut block) = (first, block);
    for section in others {
        block = f.add(&block, &int(-(before.blocks() as i64)));
        let own = panel(f, params, dot, section, &block);
        let is_earlier = f.compare("icmp slt", &block, &int(0));
        address = f.select(&is_earlier, &address, &own);
        before = section;
    }
    Ok(address)
}

/// The address of the first part of a sum that is the thread's, of the first section.
fn first_part(f: &mut FunctionText, params: &KernelParams, dot: &Dot<'_>) -> Result<Value, String> {
    let section = dot.sections.first().ok_or("a region without outputs")?;
    let lengths = DotMethod::sum_parts(dot.blocking.k);
    let parts = int(lengths.len() as i64);
    let items = int((section.blocks() * lengths.len()) as i64);
    let (item, _) = share(f, &items, &params.thread, &params.threads);
    let block = f.binary("sdiv", &item, &parts);
    let part = f.binary("srem", &item, &parts);
    let weight = panels(params, &dot.blocking, &section.products[0]);
    let [panel, _] = section.panels(f, &block);
    let before = f.scale(&part, lengths[0] as i64 / 32);
    Ok(weight.block(f, &panel, &before))
}

/// The address of the first panel of a section's column block.
fn panel(f: &mut FunctionText, params: &KernelParams, dot: &Dot<'_>, section: &Section<'_>, block: &Value) -> Value {
    let weight = panels(params, &dot.blocking, &section.products[0]);
    let [panel, _] = section.panels(f, block);
    weight.panel(f, &panel)
}
