//! The k largest of a vocabulary without sorting it.

use std::cmp::Ordering;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// The token's logit.
    pub logit: f32,
    /// The token.
    pub id: u32,
}

/// Larger logits first, lower ids first among equals.
pub(super) fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Fills `out` with the `k` largest logits in order, NaN left out. One pass: a buffer of at most
/// twice `k` candidates is cut back to `k` whenever it is full, and what is left raises the
/// threshold that later ones must exceed.
pub(super) fn largest(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let k = k.min(logits.len());
    if k == 0 {
        return;
    }
    let room = (2 * k).max(64);
    out.reserve(room);
    // A later token must be strictly larger to displace an earlier one: ids ascend.
    let mut threshold = None;
    for (id, &logit) in logits.iter().enumerate() {
        let enters = match threshold {
            Some(threshold) => logit > threshold,
            None => !logit.is_nan(),
        };
        if enters {
            // Both zeros compare equal, but not in total order.
            out.push(Candidate { logit: logit + 0.0, id: id as u32 });
            if out.len() == room {
                out.select_nth_unstable_by(k - 1, order);
                out.truncate(k);
                threshold = Some(out[k - 1].logit);
            }
        }
    }
    if out.len() > k {
        out.select_nth_unstable_by(k - 1, order);
        out.truncate(k);
    }
    out.sort_unstable_by(order);
}
