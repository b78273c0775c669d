//! One warp's run: fetch, guard, execute, branch, meet again.

use super::block::Block;
use super::warp::{Defect, Mask, Path, State, Warp};
use super::{
    access, barrier, bits, communicate, compare, convert, double, float, half, integer, matrix, partial, video, wmma,
};
use crate::error::FaultKind;
use crate::instruction::{Branch, CarryOut, Code, Operation};

/// Runs a warp until it waits, exits, or has issued `slice` instructions. An error comes with the index of its instruction.
pub(super) fn run(warp: &mut Warp, block: &mut Block, slice: u64) -> Result<(), (usize, Defect)> {
    let kernel = block.kernel;
    let Some(mut path) = warp.paths.pop() else {
        warp.state = State::Done;
        return Ok(());
    };
    for _ in 0..slice {
        while path.at == path.until {
            // The path below waits for this one, at this very place.
            path = warp.paths.pop().expect("the last path ends at an exit");
        }
        let at = path.at as usize;
        let code = &kernel.code[at];
        block.executed[at] += 1;
        if block.remaining == 0 {
            return Err((at, Defect::warp(FaultKind::InstructionLimit { limit: 0 })));
        }
        block.remaining -= 1;
        let mut mask = path.lanes;
        if let Some(guard) = code.guard {
            warp.demand_predicate(guard.predicate, mask, kernel).map_err(|defect| (at, defect))?;
            let value = warp.get_predicate(guard.predicate);
            mask &= if guard.negated { !value } else { value };
        }
        path.at += 1;
        match &code.operation {
            Operation::Branch(branch) => {
                if let Some(next) = split(warp, block, path, *branch, mask) {
                    path = next;
                }
            }
            Operation::Exit => {
                if mask == 0 {
                    continue;
                }
                warp.live &= !mask;
                path.lanes &= !mask;
                for waiting in &mut warp.paths {
                    waiting.lanes &= !mask;
                }
                if path.lanes == 0 {
                    warp.paths.retain(|waiting| waiting.lanes != 0);
                    match warp.paths.pop() {
                        Some(next) => path = next,
                        None => {
                            warp.state = State::Done;
                            return Ok(());
                        }
                    }
                }
            }
            _ if mask == 0 => {}
            Operation::Barrier(operands) => {
                barrier::arrive(warp, block, operands, mask, code.line).map_err(|defect| (at, defect))?;
                // Also after an arrival that completed the barrier, for the scheduler to release the others.
                break;
            }
            _ => execute(warp, block, code, mask).map_err(|defect| (at, defect))?,
        }
    }
    warp.paths.push(path);
    Ok(())
}

/// Takes a branch in the lanes of `taken`; where the warp splits, the paths to run later go on the stack.
fn split(warp: &mut Warp, block: &mut Block, path: Path, branch: Branch, taken: Mask) -> Option<Path> {
    if taken == 0 {
        return None;
    }
    let others = path.lanes & !taken;
    if others == 0 {
        return Some(Path { at: branch.target, ..path });
    }
    block.counters.divergent_branches += 1;
    let until = branch.reconverge;
    // A path that would only meet the one below is not kept, so that loops do not pile up paths.
    if until != path.until {
        warp.paths.push(Path { at: until, ..path });
    }
    warp.paths.push(Path { at: path.at, until, lanes: others });
    Some(Path { at: branch.target, until, lanes: taken })
}

/// Executes an instruction that is no matter of control flow, in at least one lane.
fn execute(warp: &mut Warp, block: &mut Block, code: &Code, mask: Mask) -> Result<(), Defect> {
    let line = code.line;
    match code.operation {
        Operation::Move32 { d, a } if mask & !warp.defined32(a) == 0 => {
            let value = *warp.get32(a);
            warp.set32(d, &value, mask, mask);
        }
        Operation::Move64 { d, a } if mask & !warp.defined64(a) == 0 => {
            let value = *warp.get64(a);
            warp.set64(d, &value, mask, mask);
        }
        Operation::Move32 { d, a } => partial::copy(warp, d.into(), a.into(), mask),
        Operation::Move64 { d, a } => partial::copy(warp, d.into(), a.into(), mask),
        Operation::MovePredicate { d, a } => {
            warp.set_predicate(d, warp.get_predicate(a), mask, warp.defined_predicate(a));
        }
        Operation::Pack(ref operands) => convert::pack(warp, operands, mask),
        Operation::Unpack(ref operands) => convert::unpack(warp, operands, mask),
        Operation::Select32 { d, a, b, p } => compare::select32(warp, d, [a, b], p, mask),
        Operation::Select64 { d, a, b, p } => compare::select64(warp, d, [a, b], p, mask),
        Operation::PredicateLogic { op, d, a, b } => compare::predicate_logic(warp, op, d, [a, b], mask),
        Operation::PredicateNot { d, a } => {
            warp.set_predicate(d, !warp.get_predicate(a), mask, warp.defined_predicate(a));
        }
        Operation::SetPredicate(ref operands) => compare::set_predicate(warp, operands, mask),
        Operation::Set(ref operands) => compare::set(warp, operands, mask),

        Operation::Integer32 { op, ty, d, a, b } => integer::integer32(warp, op, ty, d, [a, b], mask),
        Operation::IntegerPair { op, ty, d, a, b } => integer::pair(warp, op, ty, d, [a, b], mask),
        Operation::Integer64 { op, sign, d, a, b } => integer::integer64(warp, op, sign, d, [a, b], mask),
        Operation::MultiplyWide { sign, d, a, b } => integer::multiply_wide(warp, sign, d, [a, b], None, mask),
        Operation::MultiplyAddWide { sign, d, a, b, c } => {
            integer::multiply_wide(warp, sign, d, [a, b], Some(c), mask);
        }
        Operation::MultiplyAdd32 { high, ty, d, a, b, c } => {
            integer::multiply_add32(warp, high, ty, d, [a, b, c], mask);
        }
        Operation::MultiplyAdd64 { high, sign, d, a, b, c } => {
            integer::multiply_add64(warp, high, sign, d, [a, b, c], mask);
        }
        Operation::Carry32 { op, d, a, b, flag, out } => {
            let (carries, defined) = integer::carry32(warp, op, d, [a, b], flag, mask);
            if out == CarryOut::Write {
                warp.set_predicate(flag, carries, mask, defined);
            }
        }
        Operation::Carry64 { op, d, a, b, flag, out } => {
            let (carries, defined) = integer::carry64(warp, op, d, [a, b], flag, mask);
            if out == CarryOut::Write {
                warp.set_predicate(flag, carries, mask, defined);
            }
        }
        Operation::CarryMultiply(ref operands) => integer::carry_multiply(warp, operands, mask),
        Operation::Unary32 { op, ty, d, a } => bits::unary32(warp, op, ty, d, a, mask),
        Operation::Unary64 { op, d, a } => integer::map64(warp, d, [a, a], mask, |a, _| bits::unary64(op, a)),
        Operation::Count64 { op, d, a } => {
            let (out, defined) = (warp.get64(a).map(|value| bits::counted(op, value, 64)), warp.defined64(a));
            warp.set32(d, &out, mask, defined);
        }
        Operation::Shift32 { op, ty, d, a, b } => bits::shift32(warp, op, ty, d, [a, b], mask),
        Operation::Shift64 { op, d, a, b } => bits::shift64(warp, op, d, a, b, mask),
        Operation::FunnelShift { direction, clamp, d, a, b, c } => {
            integer::map32x3(warp, d, [a, b, c], mask, |a, b, c| bits::funnel(direction, clamp, a, b, c));
        }
        Operation::Extract32 { sign, d, a, position, length } => {
            integer::map32x3(warp, d, [a, position, length], mask, |a, position, length| {
                bits::extract(sign, u64::from(a), position, length, 32) as u32
            });
        }
        Operation::Extract64 { sign, d, a, position, length } => {
            let out = std::array::from_fn(|lane| {
                let (position, length) = (warp.get32(position)[lane], warp.get32(length)[lane]);
                bits::extract(sign, warp.get64(a)[lane], position, length, 64)
            });
            let defined = warp.defined64(a) & warp.defined32(position) & warp.defined32(length);
            warp.set64(d, &out, mask, defined);
        }
        Operation::Insert32 { d, a, b, position, length } => {
            let out = std::array::from_fn(|lane| {
                let [a, b, position, length] = [a, b, position, length].map(|register| warp.get32(register)[lane]);
                bits::insert(u64::from(a), u64::from(b), position, length, 32) as u32
            });
            let defined = [a, b, position, length].iter().fold(Mask::MAX, |all, &at| all & warp.defined32(at));
            warp.set32(d, &out, mask, defined);
        }
        Operation::Insert64 { d, a, b, position, length } => {
            let out = std::array::from_fn(|lane| {
                let (position, length) = (warp.get32(position)[lane], warp.get32(length)[lane]);
                bits::insert(warp.get64(a)[lane], warp.get64(b)[lane], position, length, 64)
            });
            let defined = warp.defined64(a) & warp.defined64(b) & warp.defined32(position) & warp.defined32(length);
            warp.set64(d, &out, mask, defined);
        }
        Operation::Permute { mode, d, a, b, c } => {
            integer::map32x3(warp, d, [a, b, c], mask, |a, b, c| bits::permute(mode, a, b, c));
        }
        Operation::Lop3 { table, d, a, b, c } => bits::lop3(warp, table, d, [a, b, c], mask),
        Operation::DotProduct { kind, a_sign, b_sign, d, a, b, c } => {
            integer::map32x3(warp, d, [a, b, c], mask, |a, b, c| integer::dot(kind, a_sign, b_sign, a, b, c));
        }
        Operation::Video(ref operands) => video::video(warp, operands, mask),
        Operation::AbsoluteDifference { sign, d, a, b, c } => {
            integer::map32x3(warp, d, [a, b, c], mask, |a, b, c| integer::absolute_difference(sign, a, b, c));
        }

        Operation::Float32 { op, mode, d, a, b } => float::float32(warp, op, mode, d, [a, b], mask),
        Operation::Extreme32 { op, mode, d, abc } => float::extreme(warp, op, mode, d, abc, mask),
        Operation::FloatPair { op, mode, d, a, b } => float::pair(warp, op, mode, d, [a, b], mask),
        Operation::FmaPair { mode, d, abc } => float::fma_pair(warp, mode, d, abc, mask),
        Operation::FloatUnary32 { op, mode, d, a } => float::unary32(warp, op, mode, d, a, mask),
        Operation::Fma32 { mode, d, a, b, c } => float::fma(warp, mode, d, [a, b, c], mask),
        Operation::Float64 { op, rounding, d, a, b } => double::binary(warp, op, rounding, d, [a, b], mask),
        Operation::FloatUnary64 { op, rounding, d, a } => double::unary(warp, op, rounding, d, a, mask),
        Operation::Fma64 { rounding, d, a, b, c } => double::fma(warp, rounding, d, [a, b, c], mask),
        Operation::Half { op, kind, d, a, b } => half::binary(warp, op, kind, d, [a, b], mask),
        Operation::HalfUnary { op, kind, d, a } => half::unary(warp, op, kind, d, a, mask),
        Operation::HalfFma { kind, d, a, b, c } => half::fma(warp, kind, d, [a, b, c], mask),
        Operation::Convert(ref operands) => convert::convert(warp, operands, mask),
        Operation::ConvertPack(ref operands) => convert::convert_pack(warp, operands, mask),

        Operation::Load(ref operands) => return access::load(warp, block, operands, mask, line),
        Operation::Store(ref operands) => return access::store(warp, block, operands, mask, line),
        Operation::Atomic(ref elements) => {
            return elements.iter().try_for_each(|element| access::atomic(warp, block, element, mask, line));
        }
        Operation::CopyAsync(ref operands) => return access::copy_async(warp, block, operands, mask, line),
        Operation::CopyCommit => warp.copies.commit(mask),
        Operation::CopyWait { pending } => access::copy_wait(warp, block, mask, pending),
        Operation::CopyWaitAll => {
            warp.copies.commit(mask);
            access::copy_wait(warp, block, mask, 0);
        }
        Operation::LoadMatrix(ref operands) => return matrix::load(warp, block, operands, mask, line),
        Operation::StoreMatrix(ref operands) => return matrix::store(warp, block, operands, mask, line),
        Operation::IsSpace { d, a, space } => {
            let held =
                (0..32).fold(0, |held, lane| held | u32::from(access::generic(warp.get64(a)[lane]).0 == space) << lane);
            let defined = warp.defined64(a);
            warp.set_predicate(d, held, mask, defined);
        }

        Operation::Mma(ref operands) => return matrix::mma(warp, block, operands, mask),
        Operation::WmmaLoad(ref operands) => return wmma::load(warp, block, operands, mask, line),
        Operation::WmmaStore(ref operands) => return wmma::store(warp, block, operands, mask, line),
        Operation::Wmma(ref operands) => return wmma::multiply(warp, block, operands, mask),
        Operation::Shuffle(ref operands) => return communicate::shuffle(warp, block, operands, mask),
        Operation::Vote(ref operands) => return communicate::vote(warp, block, operands, mask),
        Operation::Match { kind, d, p, a, members } => {
            return communicate::matching(warp, block, &communicate::Match { kind, d, p, a, members }, mask);
        }
        Operation::Reduce { op, d, a, members } => {
            return communicate::reduce(warp, block, &communicate::Reduce { op, d, a, members }, mask);
        }
        Operation::Elect { d, p, members } => return communicate::elect(warp, block, d, p, members, mask),
        Operation::ActiveMask { d } => warp.set32(d, &[mask; 32], mask, Mask::MAX),
        Operation::WarpBarrier { members } => {
            communicate::members(warp, block, members, mask)?;
        }
        Operation::Trap => return Err(Defect::lane(mask.trailing_zeros(), FaultKind::Trap)),
        Operation::Nothing | Operation::Barrier(_) | Operation::Branch(_) | Operation::Exit => {}
    }
    Ok(())
}
