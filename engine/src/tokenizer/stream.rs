//! Token bytes to text, as the tokens come.

use super::Tokenizer;

/// Turns tokens into text one at a time and holds back what is not a whole character yet.
///
/// A character may span tokens, and a token may hold part of one: decoding ids one by one loses bytes. Bytes that can
/// never become a character turn into U+FFFD, as in [`String::from_utf8_lossy`].
#[derive(Debug)]
pub struct TextStream {
    pending: Vec<u8>,
    out: String,
}

impl TextStream {
    /// A stream with room for the longest token, so that [`TextStream::push`] allocates nothing.
    pub fn new(tokenizer: &Tokenizer) -> TextStream {
        let longest = tokenizer.longest_piece();
        // Every byte could become a U+FFFD of three bytes, and three bytes may be pending from before.
        TextStream { pending: Vec::with_capacity(longest + 4), out: String::with_capacity(3 * (longest + 4)) }
    }

    /// Adds a token; returns the text that became certain. Control tokens have none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> &str {
        self.push_bytes(tokenizer.piece(id))
    }

    /// Adds the last token; returns the text that became certain and all that was pending.
    pub fn push_last(&mut self, tokenizer: &Tokenizer, id: u32) -> &str {
        self.push(tokenizer, id);
        self.flush();
        &self.out
    }

    /// The longest text that one token can bring, in bytes.
    pub fn capacity(&self) -> usize {
        self.out.capacity()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> &str {
        self.out.clear();
        self.pending.extend_from_slice(bytes);
        let mut start = 0;
        let kept = loop {
            match std::str::from_utf8(&self.pending[start..]) {
                Ok(text) => {
                    self.out.push_str(text);
                    break self.pending.len();
                }
                Err(error) => {
                    let valid = start + error.valid_up_to();
                    let text = std::str::from_utf8(&self.pending[start..valid]);
                    self.out.push_str(text.expect("`valid_up_to` bounds valid text"));
                    match error.error_len() {
                        // The rest may still become a character.
                        None => break valid,
                        Some(bad) => {
                            self.out.push('\u{FFFD}');
                            start = valid + bad;
                        }
                    }
                }
            }
        };
        self.pending.drain(..kept);
        &self.out
    }

    /// Ends the stream: an unfinished character becomes one U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.out.clear();
        self.flush();
        &self.out
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.out.push('\u{FFFD}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream() -> TextStream {
        TextStream { pending: Vec::new(), out: String::new() }
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_once_it_is_whole() {
        let mut s = stream();
        let bytes = "日".as_bytes();
        assert_eq!(s.push_bytes(&bytes[..1]), "");
        assert_eq!(s.push_bytes(&bytes[1..2]), "");
        assert_eq!(s.push_bytes(&bytes[2..]), "日");
        assert_eq!(s.finish(), "");
    }

    #[test]
    fn bytes_that_never_become_a_character_are_replaced_and_the_rest_survives() {
        let mut s = stream();
        assert_eq!(s.push_bytes(b"a\xffb\xe6"), "a\u{FFFD}b");
        assert_eq!(s.push_bytes(b"c"), "\u{FFFD}c");
        assert_eq!(s.push_bytes(b"\xe6\x97"), "");
        assert_eq!(s.finish(), "\u{FFFD}");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_cuts_decode_as_the_whole_does(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 1usize..7) {
            let mut s = stream();
            let mut got = String::new();
            for part in bytes.chunks(cut) {
                got.push_str(s.push_bytes(part));
            }
            got.push_str(s.finish());
            prop_assert_eq!(got, String::from_utf8_lossy(&bytes));
        }
    }
}
