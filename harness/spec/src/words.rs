//! What people are told of an error.

use std::error::Error;

/// What was being done, then each cause that has not been told yet, on one line; then every hint on a line of its own.
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let (mut happened, mut hints) = (String::new(), Vec::<String>::new());
    let mut rest = Some(error);
    while let Some(cause) = rest {
        rest = cause.source();
        let text = cause.to_string();
        let mut parts = text.split("\nhint:");
        let what = parts.next().unwrap_or_default();
        // Errors that wrap another often repeat its words.
        if !happened.contains(what) {
            let between = if happened.is_empty() { "" } else { ": " };
            happened = format!("{happened}{between}{what}");
        }
        for hint in parts.map(str::trim) {
            if !hints.iter().any(|told| told == hint) {
                hints.push(hint.to_owned());
            }
        }
    }
    hints.iter().fold(happened, |text, hint| format!("{text}\nhint: {hint}"))
}
