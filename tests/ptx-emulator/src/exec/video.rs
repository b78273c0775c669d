//! SIMD video instructions: arithmetic on the two halves or the four bytes of registers.

use super::integer::map32x3;
use super::warp::{Mask, Warp};
use crate::instruction::{Accumulate, Saturate, Sign, Video, VideoOp};

pub(super) fn video(warp: &mut Warp, video: &Video, mask: Mask) {
    map32x3(warp, video.d, video.abc, mask, |a, b, c| {
        let parts = (0..32 / video.bits).map(|part| {
            let at = part * video.bits;
            (at, one(video, element(a, at, video.bits, video.signs[0]), element(b, at, video.bits, video.signs[1])))
        });
        match video.accumulate {
            Accumulate::Yes => parts.fold(c, |sum, (_, value)| sum.wrapping_add(value as u32)),
            Accumulate::No => {
                let low = (1 << video.bits) - 1;
                parts.fold(0, |word, (at, value)| word | (value as u32 & low) << at)
            }
        }
    });
}

fn element(word: u32, at: u32, bits: u32, sign: Sign) -> i32 {
    let top = word << (32 - bits - at);
    match sign {
        Sign::Signed => top as i32 >> (32 - bits),
        Sign::Unsigned => (top >> (32 - bits)) as i32,
    }
}

fn one(video: &Video, a: i32, b: i32) -> i32 {
    let value = match video.op {
        VideoOp::Add => a + b,
        VideoOp::Sub => a - b,
        // Halves are rounded away from zero.
        VideoOp::Average => (a + b + i32::from(a + b >= 0)) >> 1,
        VideoOp::AbsoluteDifference => (a - b).abs(),
        VideoOp::Min => a.min(b),
        VideoOp::Max => a.max(b),
    };
    if video.saturate == Saturate::No {
        return value;
    }
    match video.result {
        Sign::Signed => value.clamp(-(1 << (video.bits - 1)), (1 << (video.bits - 1)) - 1),
        Sign::Unsigned => value.clamp(0, (1 << video.bits) - 1),
    }
}
