//! Which launches of a program may start before the one ahead has ended.

/// The edges between the launches of a program: programmatic ones, by which a kernel may start before the one ahead has
/// ended, and plain ones, by which it starts when that one has. A plain edge is right wherever a programmatic one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    programmatic: bool,
    plain: Option<PlainEdges>,
}

/// Plain edges among programmatic ones: ahead of the launch `first` and of every `every`-th behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlainEdges {
    every: usize,
    first: usize,
}

impl Overlap {
    /// No launch starts early.
    pub const NONE: Overlap = Overlap { programmatic: false, plain: None };
    /// Every launch but the first may start early, where its kernel waits by itself.
    pub const ALL: Overlap = Overlap { programmatic: true, plain: None };

    /// With plain edges as `text` says: `25` has one ahead of every 25th launch, counted from 0, and `25+3` ahead of the
    /// launches 3, 28, 53 and so on; `0` has none.
    pub fn with_plain_edges(self, text: &str) -> Option<Overlap> {
        let (every, first) = match text.split_once('+') {
            Some((every, first)) => (every.parse().ok()?, first.parse().ok()?),
            None => (text.parse().ok()?, 0),
        };
        let plain = (every > 0).then_some(PlainEdges { every, first });
        Some(Overlap { plain, ..self })
    }

    /// Whether a launch may start early, by its place in the program.
    pub(super) fn is_early(self, launch: usize) -> bool {
        let is_plain = |plain: PlainEdges| launch >= plain.first && (launch - plain.first).is_multiple_of(plain.every);
        self.programmatic && launch > 0 && !self.plain.is_some_and(is_plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(overlap: Overlap) -> Vec<usize> {
        (0..12).filter(|&launch| !overlap.is_early(launch)).collect()
    }

    #[test]
    fn plain_edges_stand_ahead_of_every_launch_that_was_asked_for_and_of_the_first() {
        let with = |text: &str| Overlap::ALL.with_plain_edges(text).map(plain);
        assert_eq!(with("5"), Some(vec![0, 5, 10]));
        assert_eq!(with("5+3"), Some(vec![0, 3, 8]));
        assert_eq!((with("0"), with("1")), (Some(vec![0]), Some((0..12).collect())));
        assert_eq!((plain(Overlap::ALL), plain(Overlap::NONE)), (vec![0], (0..12).collect()));
        assert_eq!(Overlap::NONE.with_plain_edges("5").map(plain), Some((0..12).collect()));
        assert!(["", "x", "-1", "5+", "+5", "5+x"].iter().all(|text| with(text).is_none()));
    }
}
