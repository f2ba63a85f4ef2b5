//! What to ask for instead of slots and a context that do not fit a memory, whichever it is.

use std::num::NonZeroUsize;

/// The most slots, fewer than these, that fit.
pub(crate) fn fewer_slots(slots: NonZeroUsize, fits: impl Fn(NonZeroUsize) -> bool) -> Option<NonZeroUsize> {
    (1..slots.get()).rev().filter_map(NonZeroUsize::new).find(|&fewer| fits(fewer))
}

/// A context of fewer positions that fits: halved until it does, in steps that people choose. None below 256.
pub(crate) fn shorter_context(context: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let halves = std::iter::successors(Some(context / 2), |c| Some(c / 2)).take_while(|&c| c >= 256);
    halves.map(|c| 1 << c.ilog2()).find(|&c| fits(c))
}
