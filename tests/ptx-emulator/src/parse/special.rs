//! The special registers that the emulator has. All of them are constant while a warp runs.

use crate::module::Special;

/// Whether a 64-bit register tells the time, which stands still here.
pub(super) fn is_clock(name: &str) -> bool {
    matches!(name, "%clock64" | "%globaltimer")
}

pub(super) fn special(name: &str) -> Option<Special> {
    let axis = |suffix: &str| ["x", "y", "z"].iter().position(|axis| *axis == suffix);
    if let Some((register, suffix)) = name.split_once('.') {
        let axis = axis(suffix)?;
        return Some(match register {
            "%tid" => Special::Thread(axis),
            "%ntid" => Special::BlockSize(axis),
            "%ctaid" => Special::Block(axis),
            "%nctaid" => Special::GridSize(axis),
            // Without clusters every block is a cluster of its own.
            "%cluster_ctaid" => Special::Zero,
            "%clusterid" => Special::Block(axis),
            "%nclusterid" => Special::GridSize(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Warps,
        "%lanemask_eq" => Special::LaneMaskEqual,
        "%lanemask_lt" => Special::LaneMaskLess,
        "%lanemask_le" => Special::LaneMaskLessEqual,
        "%lanemask_gt" => Special::LaneMaskGreater,
        "%lanemask_ge" => Special::LaneMaskGreaterEqual,
        "%dynamic_smem_size" => Special::DynamicSharedBytes,
        "%total_smem_size" => Special::TotalSharedBytes,
        "%clock" | "%clock_hi" | "%globaltimer_lo" | "%globaltimer_hi" => Special::Zero,
        // Blocks run one after the other, as on a device with a single multiprocessor.
        "%cluster_ctarank" | "%smid" => Special::Zero,
        _ => return None,
    })
}
