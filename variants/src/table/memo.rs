//! Choices that were made already, found again without a lock and without allocating.
//!
//! Entries are only ever added, each behind a cell that is written once. A choice that fails is not replaced but followed by
//! its successor, so that whoever holds it may go on looking at it.

use std::sync::OnceLock;

use harness_spec::Shape;

use super::Choice;

/// Lists of entries; an op and shape belong to one of them by hash.
const LISTS: usize = 1024;

/// Choices by op and shape.
#[derive(Debug)]
pub(super) struct Memo {
    lists: Box<[OnceLock<Box<Entry>>]>,
}

#[derive(Debug)]
struct Entry {
    op: String,
    shape: Shape,
    made: Made,
    next: OnceLock<Box<Entry>>,
}

/// A choice, and the one that came after it.
#[derive(Debug)]
struct Made {
    choice: Choice,
    after: OnceLock<Box<Made>>,
}

impl Made {
    fn new(choice: Choice) -> Made {
        Made { choice, after: OnceLock::new() }
    }

    fn last(&self) -> &Made {
        let mut made = self;
        while let Some(after) = made.after.get() {
            made = after;
        }
        made
    }
}

/// The dimensions of a shape; one token is the same with and without saying so.
fn dims(shape: &Shape) -> impl Iterator<Item = (&str, u64)> {
    shape.0.iter().map(|(name, &value)| (name.as_str(), value)).filter(|&(name, value)| value != 1 || name != "M")
}

/// Whether two shapes are the same work.
pub(super) fn same_shape(a: &Shape, b: &Shape) -> bool {
    dims(a).eq(dims(b))
}

/// A hash of a few multiplications: the ops and names are a word or two long.
pub(super) fn hash(op: &str, shape: &Shape) -> u64 {
    let mix = |h: u64, word: u64| (h.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = |h: u64, text: &str| {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        let h = words.iter().fold(h, |h, word| mix(h, u64::from_le_bytes(*word)));
        // The length keeps what is left apart from the same bytes elsewhere.
        mix(h, rest.iter().fold(text.len() as u64, |word, &byte| word << 8 | u64::from(byte)))
    };
    let h = dims(shape).fold(text(0, op), |h, (name, value)| mix(text(h, name), value));
    h ^ (h >> 32)
}

impl Memo {
    /// Nothing yet.
    pub fn new() -> Memo {
        Memo { lists: (0..LISTS).map(|_| OnceLock::new()).collect() }
    }

    fn list(&self, op: &str, shape: &Shape) -> &OnceLock<Box<Entry>> {
        // The low bits choose the list, and the modulus of a power of two is a mask.
        &self.lists[hash(op, shape) as usize % LISTS]
    }

    /// The choice for an op and shape, if it was made.
    pub fn get(&self, op: &str, shape: &Shape) -> Option<&Choice> {
        let mut at = self.list(op, shape);
        while let Some(entry) = at.get() {
            if entry.op == op && same_shape(&entry.shape, shape) {
                return Some(&entry.made.last().choice);
            }
            at = &entry.next;
        }
        None
    }

    /// Keeps a choice, and gives the one that holds: where two threads chose at once, the first.
    pub fn add(&self, op: &str, shape: &Shape, choice: Choice) -> &Choice {
        let mut at = self.list(op, shape);
        loop {
            let new = || {
                let made = Made::new(choice.clone());
                Box::new(Entry { op: op.to_owned(), shape: shape.clone(), made, next: OnceLock::new() })
            };
            let entry = at.get_or_init(new);
            if entry.op == op && same_shape(&entry.shape, shape) {
                return &entry.made.last().choice;
            }
            at = &entry.next;
        }
    }

    /// Lets a choice take the place of the one that was made.
    pub fn replace(&self, op: &str, shape: &Shape, choice: Choice) {
        let mut at = self.list(op, shape);
        while let Some(entry) = at.get() {
            if entry.op == op && same_shape(&entry.shape, shape) {
                let mut made = &entry.made;
                // Where another thread was faster, this choice follows its.
                while made.last().after.set(Box::new(Made::new(choice.clone()))).is_err() {
                    made = made.last();
                }
                return;
            }
            at = &entry.next;
        }
    }
}
