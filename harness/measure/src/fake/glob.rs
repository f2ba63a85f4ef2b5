//! Patterns of a script: `*` stands for any text.

/// Whether `text` fits `pattern`.
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        // The last part has to end the text; those before it may match as early as they can.
        if let Some(middle) = last.replace(part) {
            let Some(at) = rest.find(middle) else { return false };
            rest = &rest[at + middle.len()..];
        }
    }
    match last {
        None => rest.is_empty(),
        Some(tail) => rest.ends_with(tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("", "", true),
            ("a", "b", false),
            ("op/a*", "op/a[R=1]@cuda", true),
            ("op/a*@cuda", "op/a[R=1]@cuda", true),
            ("op/a*@cuda", "op/a[R=1]@cpu", false),
            ("*R=1*", "op/a[R=1,W=2]@cuda", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("ab*ab", "ab", false),
        ] {
            assert_eq!(fits(pattern, text), want, "{pattern} {text}");
        }
    }
}
