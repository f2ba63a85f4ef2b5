//! Lengths of a context by classes, in each of which attention of a token is chosen and measured by itself: what is best
//! for a few hundred keys leaves most of a device idle at many thousand.

use harness_spec::Shape;

/// The longest length of each class, and the length that stands in its shapes.
const CLASSES: [(usize, usize); 4] = [(1024, 512), (4096, 2048), (16_384, 8192), (usize::MAX, 32_768)];

/// A range of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LengthClass(usize);

impl LengthClass {
    /// That of a number of keys.
    pub fn of(len: usize) -> LengthClass {
        LengthClass(CLASSES.iter().position(|&(longest, _)| len <= longest).unwrap_or(CLASSES.len() - 1))
    }

    /// Those that a context of `max_len` positions reaches, the shortest first.
    pub fn up_to(max_len: usize) -> impl Iterator<Item = LengthClass> {
        (0..=LengthClass::of(max_len).0).map(LengthClass)
    }

    /// Its place among all, the shortest at 0.
    pub const fn index(self) -> usize {
        self.0
    }

    /// The length that stands in its shapes.
    pub const fn key(self) -> usize {
        CLASSES[self.0].1
    }
}

/// A shape in the other classes of lengths, the nearest first and the shorter of two. None for a shape without a length.
pub(super) fn in_other_classes(shape: &Shape) -> Vec<Shape> {
    let len = shape.get("LEN");
    let Some(own) = CLASSES.iter().position(|&(_, key)| len == Some(key as u64)) else { return Vec::new() };
    let mut others: Vec<usize> = (0..CLASSES.len()).filter(|&class| class != own).collect();
    others.sort_by_key(|class| class.abs_diff(own));
    let with = |class: usize| {
        let mut other = shape.clone();
        other.0.insert("LEN".to_owned(), CLASSES[class].1 as u64);
        other
    };
    others.into_iter().map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_a_class_whose_key_is_of_it() {
        for class in LengthClass::up_to(usize::MAX) {
            assert_eq!(LengthClass::of(class.key()), class);
        }
        let index = |len| LengthClass::of(len).index();
        assert_eq!([1, 1024, 1025, 4096, 4097, 16_384, 16_385, 1 << 40].map(index), [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn a_context_reaches_the_classes_up_to_its_own() {
        let keys = |len| LengthClass::up_to(len).map(LengthClass::key).collect::<Vec<_>>();
        assert_eq!(keys(600), [512]);
        assert_eq!(keys(1024), [512]);
        assert_eq!(keys(2048), [512, 2048]);
        assert_eq!(keys(131_072), [512, 2048, 8192, 32_768]);
    }

    #[test]
    fn other_classes_come_nearest_first_and_only_where_there_is_a_length() {
        let shape = Shape::of([("DIM", 128), ("LEN", 2048)]);
        let others = in_other_classes(&shape);
        let lens: Vec<_> = others.iter().filter_map(|s| s.get("LEN")).collect();
        assert_eq!(lens, [512, 8192, 32_768]);
        assert!(others.iter().all(|s| s.get("DIM") == Some(128)));
        assert!(in_other_classes(&Shape::of([("N", 64), ("K", 64)])).is_empty());
    }
}
