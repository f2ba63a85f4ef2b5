//! What to ask for instead of slots and a context that do not fit a memory, whichever it is.

use std::num::NonZeroUsize;

/// The most slots, fewer than these, that fit. Where some fit, fewer do.
pub(crate) fn fewer_slots(slots: NonZeroUsize, fits: impl Fn(NonZeroUsize) -> bool) -> Option<NonZeroUsize> {
    let (mut most, mut too_many) = (0, slots.get());
    while too_many - most > 1 {
        let middle = most.midpoint(too_many);
        match NonZeroUsize::new(middle).is_some_and(&fits) {
            true => most = middle,
            false => too_many = middle,
        }
    }
    NonZeroUsize::new(most)
}

/// A context of fewer positions that fits: halved until it does, in steps that people choose. None below 256.
pub(crate) fn shorter_context(context: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let halves = std::iter::successors(Some(context / 2), |c| Some(c / 2)).take_while(|&c| c >= 256);
    halves.map(|c| 1 << c.ilog2()).find(|&c| fits(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_slots_that_fit_are_found_among_however_many_and_are_fewer_than_asked() {
        let fewer = |slots, fit| fewer_slots(NonZeroUsize::new(slots).unwrap(), |n| n.get() <= fit).map(usize::from);
        assert_eq!([fewer(5, 0), fewer(1, 9), fewer(2, 1)], [None, None, Some(1)]);
        for fit in 1..40 {
            assert_eq!(fewer(usize::MAX, fit), Some(fit));
            assert_eq!(fewer(20, fit), Some(fit.min(19)));
        }
    }
}
