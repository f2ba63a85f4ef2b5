//! Choices that were made already, found again without allocating.

use harness_spec::Shape;

use super::Choice;

/// Choices by op and shape, sorted by hash.
#[derive(Debug, Default)]
pub(super) struct Memo {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    op: String,
    shape: Shape,
    choice: Choice,
}

/// The dimensions of a shape; one token is the same with and without saying so.
fn dims(shape: &Shape) -> impl Iterator<Item = (&str, u64)> {
    shape.0.iter().map(|(name, &value)| (name.as_str(), value)).filter(|&(name, value)| !(name == "M" && value == 1))
}

/// A hash of a few multiplications: the ops and names are a word or two long.
fn hash(op: &str, shape: &Shape) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |h: u64, word: u64| (h.rotate_left(5) ^ word).wrapping_mul(ODD);
    let text = |h: u64, text: &str| {
        let h = mix(h, text.len() as u64);
        text.as_bytes().chunks(8).fold(h, |h, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(h, u64::from_le_bytes(word))
        })
    };
    let h = dims(shape).fold(text(0, op), |h, (name, value)| mix(text(h, name), value));
    h ^ (h >> 32)
}

impl Memo {
    /// Where the choice of an op at a shape is, or where it would be.
    fn find(&self, op: &str, shape: &Shape) -> Result<usize, (usize, u64)> {
        let hash = hash(op, shape);
        let first = self.entries.partition_point(|e| e.hash < hash);
        let same = self.entries[first..].iter().take_while(|e| e.hash == hash);
        let found = same.enumerate().find(|(_, e)| e.op == op && dims(&e.shape).eq(dims(shape)));
        found.map(|(i, _)| first + i).ok_or((first, hash))
    }

    pub fn get(&self, op: &str, shape: &Shape) -> Option<&Choice> {
        self.find(op, shape).ok().map(|i| &self.entries[i].choice)
    }

    pub fn put(&mut self, op: &str, shape: &Shape, choice: Choice) {
        match self.find(op, shape) {
            Ok(i) => self.entries[i].choice = choice,
            Err((at, hash)) => {
                self.entries.insert(at, Entry { hash, op: op.to_owned(), shape: shape.clone(), choice });
            }
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
