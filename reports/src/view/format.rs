//! Numbers and words as people read them. One place, so that page, terminal and Markdown never disagree.

use harness_spec::record::{DropReason, Measure, Provenance, Verdict};

/// What stands where there is no value.
pub(crate) const NONE: &str = "—";

/// Decimals that give `v` four significant digits.
pub(crate) fn decimals(v: f64) -> usize {
    let magnitude = v.abs();
    match magnitude {
        m if m >= 1000.0 => 0,
        m if m >= 100.0 => 1,
        m if m >= 10.0 => 2,
        m if m >= 0.1 || m == 0.0 => 3,
        _ => 5,
    }
}

/// `v` with four significant digits or so.
pub(crate) fn number(v: f64) -> String {
    if !v.is_finite() {
        return NONE.to_owned();
    }
    format!("{v:.*}", decimals(v))
}

/// An interval with the decimals of its centre.
pub(crate) fn interval([lo, hi]: [f64; 2], centre: f64) -> String {
    let digits = decimals(centre);
    format!("[{lo:.digits$}, {hi:.digits$}]")
}

/// A ratio, always with three decimals.
pub(crate) fn ratio(v: f64) -> String {
    format!("{v:.3}")
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A size in binary units.
pub(crate) fn bytes(n: f64) -> String {
    const MIB: f64 = 1_048_576.0;
    if n >= 1024.0 * MIB {
        format!("{:.2} GiB", n / (1024.0 * MIB))
    } else if n >= MIB {
        format!("{:.1} MiB", n / MIB)
    } else if n >= 1024.0 {
        format!("{:.1} KiB", n / 1024.0)
    } else {
        format!("{n:.0} B")
    }
}

/// A whole number with thin groups of three, such as `134 515 008`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A wall time such as `2 min 05 s`.
pub(crate) fn wall(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

/// A measure by `show`, or the reason why there is none. Numbers that were neither measured nor derived from
/// measured ones are not shown.
pub(crate) fn measure(m: &Measure, show: impl Fn(f64) -> String) -> Result<String, String> {
    match (m.value, m.provenance) {
        (Some(v), Provenance::Measured | Provenance::Derived) if v.is_finite() => Ok(show(v)),
        (Some(_), Provenance::Measured | Provenance::Derived) => Err("the value is not finite".to_owned()),
        (Some(_), _) => Err("neither measured nor derived from measured values".to_owned()),
        (None, _) => Err(m.reason.clone().unwrap_or_else(|| "not measured, and no reason was recorded".to_owned())),
    }
}

/// The verdict as a word.
pub(crate) fn verdict(v: Verdict) -> &'static str {
    match v {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::Tie => "tie",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Unstable => "unstable",
        Verdict::Withheld => "withheld",
    }
}

/// A sign beside the word, so that the verdict does not hang on colour alone.
pub(crate) fn verdict_sign(v: Verdict) -> &'static str {
    match v {
        Verdict::Faster => "▲",
        Verdict::Slower => "▼",
        Verdict::Tie => "=",
        Verdict::Inconclusive => "?",
        Verdict::Unstable => "~",
        Verdict::Withheld => "–",
    }
}

/// A drop reason as a phrase.
pub(crate) fn drop_reason(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Warmup => "warm-up, declared before the run",
        DropReason::UnequalTokens => "the sides generated different numbers of tokens",
        DropReason::UnequalPromptTokens => "the sides counted different numbers of prompt tokens",
        DropReason::CachedPrompt => "part of the prompt came from a cache",
        DropReason::WrongCount => "the server's token count differs from the stream",
        DropReason::Throttled => "the core clock was too low",
        DropReason::PartnerLost => "the other run of the pair was lost",
        DropReason::Failed => "the request failed",
    }
}

/// A drop reason by its name in the record, as a phrase; an unknown name stands for itself.
pub(crate) fn drop_reason_named(key: &str) -> String {
    match serde_json::from_value::<DropReason>(serde_json::Value::from(key)) {
        Ok(reason) => drop_reason(reason).to_owned(),
        Err(_) => one_line(key),
    }
}

/// Text of a server or a user on one line, without control characters that could steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let cleaned: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cleaned.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `text` cut to `max` characters, with a mark where it was cut.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max.saturating_sub(1)).chain(std::iter::once('…')).collect(),
    }
}

/// An endpoint without its scheme: the page names no address that a browser could follow.
pub(crate) fn endpoint(url: &str) -> String {
    url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned()
}

/// A command line that a shell reads back as the same words.
pub(crate) fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    let quoted = words.iter().map(|w| match !w.is_empty() && w.chars().all(plain) {
        true => w.clone(),
        false => format!("'{}'", w.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits_and_an_interval_those_of_its_centre() {
        assert_eq!(
            ["1234", "123.4", "12.34", "1.234", "0.123", "0.01234"].map(str::to_owned),
            [number(1234.4), number(123.44), number(12.344), number(1.2344), number(0.12344), number(0.012344),]
        );
        assert_eq!(interval([99.96, 101.234], 100.5), "[100.0, 101.2]");
        assert_eq!(number(f64::NAN), NONE);
    }

    #[test]
    fn a_measure_without_value_gives_its_reason_and_an_estimate_is_not_shown() {
        assert_eq!(measure(&Measure::measured(2.0), number), Ok("2.000".to_owned()));
        assert_eq!(measure(&Measure::missing("no procfs"), number), Err("no procfs".to_owned()));
        let guess = Measure { provenance: Provenance::Estimated, ..Measure::measured(2.0) };
        assert_eq!(measure(&guess, number), Err("neither measured nor derived from measured values".to_owned()));
    }

    #[test]
    fn control_characters_of_a_server_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\u{1b}[31mb\r\nc"), "a [31mb c");
    }

    #[test]
    fn a_command_line_quotes_what_a_shell_would_split() {
        let words = ["bench", "--note", "it's a b"].map(str::to_owned);
        assert_eq!(command_line(&words), r"bench --note 'it'\''s a b'");
    }

    #[test]
    fn sizes_are_binary_and_times_are_readable() {
        assert_eq!(bytes(98_362_432.0), "93.8 MiB");
        assert_eq!(wall(125.2), "2 min 05 s");
        assert_eq!(grouped(134_515_008), "134\u{202f}515\u{202f}008");
        assert_eq!(shortened("abcdef", 4), "abc…");
    }
}
