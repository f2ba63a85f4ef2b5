//! Stop strings: text is held back while it may be the beginning of one.

/// Looks for stop strings in a stream of text. Allocates nothing once it has been made.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
    out: String,
}

impl StopMatcher {
    /// A matcher for these strings; empty ones are ignored. `longest_text` is the longest text pushed at once.
    pub fn new(stops: &[String], longest_text: usize) -> StopMatcher {
        let stops: Vec<String> = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        let room = stops.iter().map(String::len).max().unwrap_or(0) + longest_text;
        StopMatcher { stops, held: String::with_capacity(room), out: String::with_capacity(room) }
    }

    /// Adds text. Returns what can be shown, and whether a stop string was found; nothing from it on is shown.
    pub fn push(&mut self, text: &str) -> (&str, bool) {
        self.out.clear();
        if self.stops.is_empty() {
            self.out.push_str(text);
            return (&self.out, false);
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let show = found.unwrap_or_else(|| self.held.len() - self.may_begin());
        self.out.push_str(&self.held[..show]);
        match found {
            Some(_) => self.held.clear(),
            None => drop(self.held.drain(..show)),
        }
        (&self.out, found.is_some())
    }

    /// Adds the last text and shows all that is left, unless a stop string is in it.
    pub fn finish(&mut self, text: &str) -> (&str, bool) {
        let (_, found) = self.push(text);
        if !found {
            let StopMatcher { held, out, .. } = self;
            out.push_str(held);
            held.clear();
        }
        (&self.out, found)
    }

    /// Length of the longest end of the held text that a stop string may begin with.
    fn may_begin(&self) -> usize {
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0).min(self.held.len());
        let ends = (1..=longest).rev().filter(|n| self.held.is_char_boundary(self.held.len() - n));
        let mut ends = ends.map(|n| &self.held[self.held.len() - n..]);
        ends.find(|end| self.stops.iter().any(|stop| stop.starts_with(end))).map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], parts: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|&s| s.to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops, 16);
        let mut shown = String::new();
        for part in parts {
            let (text, found) = matcher.push(part);
            shown.push_str(text);
            if found {
                return (shown, true);
            }
        }
        let (text, found) = matcher.finish("");
        shown.push_str(text);
        (shown, found)
    }

    #[test]
    fn a_stop_string_that_spans_tokens_is_found_and_not_shown() {
        assert_eq!(run(&["\nUser:"], &["Hi.", "\n", "Us", "er", ": what"]), ("Hi.".into(), true));
    }

    #[test]
    fn text_that_only_looked_like_a_stop_string_is_shown_after_all() {
        assert_eq!(run(&["STOP"], &["S", "T", "O", "NE"]), ("STONE".into(), false));
        assert_eq!(run(&["STOP"], &["x", "STO"]), ("xSTO".into(), false));
    }

    #[test]
    fn the_earliest_of_several_stop_strings_counts() {
        assert_eq!(run(&["cd", "bcde", ""], &["a", "bcde"]), ("a".into(), true));
        assert_eq!(run(&["é!", "x"], &["caf", "é", "!"]), ("caf".into(), true));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_text_before_the_first_stop_string(text in "[ab]{0,40}", stop in "[ab]{1,5}", cut in 1usize..6) {
            let chars: Vec<char> = text.chars().collect();
            let parts: Vec<String> = chars.chunks(cut).map(|part| part.iter().collect()).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            // Parts are pushed whole, so a stop string inside one is found with what follows it.
            let want = text.find(&stop).map_or((text.clone(), false), |at| (text[..at].to_owned(), true));
            prop_assert_eq!(run(&[&stop], &parts), want);
        }
    }
}
