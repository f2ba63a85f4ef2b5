//! How long a model stays loaded after its last request, as Ollama's `keep_alive` says it.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// How long a model stays loaded after its last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until the server ends or another model takes its place.
    Forever,
    /// For this long; zero unloads at once.
    For(Duration),
}

impl Default for KeepAlive {
    /// Five minutes, as Ollama has it.
    fn default() -> KeepAlive {
        KeepAlive::For(Duration::from_secs(300))
    }
}

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("keep_alive '{0}' is not a duration; write 5m, 1h30m, a number of seconds, 0 to unload or -1 to stay")]
pub struct KeepAliveError(pub String);

impl KeepAlive {
    fn from_seconds(seconds: f64) -> Option<KeepAlive> {
        match seconds {
            s if s < 0.0 => Some(KeepAlive::Forever),
            s => Duration::try_from_secs_f64(s).ok().map(KeepAlive::For),
        }
    }
}

impl FromStr for KeepAlive {
    type Err = KeepAliveError;

    /// Reads `300`, `-1` and the durations of Go: `1h30m`, `1.5s`, `200ms`, `-1m`.
    fn from_str(text: &str) -> Result<KeepAlive, KeepAliveError> {
        let seconds = text.parse::<f64>().ok().or_else(|| go_duration(text));
        seconds.and_then(KeepAlive::from_seconds).ok_or_else(|| KeepAliveError(text.to_owned()))
    }
}

fn go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..number].parse().ok()?;
        rest = &rest[number..];
        // The longer unit first: `ms` begins with `m`.
        let units = [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        seconds += value * scale;
    }
    Some(sign * seconds)
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeepAlive, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Seconds(f64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Seconds(s) => {
                KeepAlive::from_seconds(s).ok_or_else(|| de::Error::custom(KeepAliveError(s.to_string())))
            }
            Form::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_duration_is_read() {
        let seconds = |s| KeepAlive::For(Duration::from_secs(s));
        for (text, want) in [
            ("300", seconds(300)),
            ("5m", seconds(300)),
            ("1h30m", seconds(5400)),
            ("0", seconds(0)),
            ("1500ms", KeepAlive::For(Duration::from_millis(1500))),
            ("-1", KeepAlive::Forever),
            ("-1m", KeepAlive::Forever),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        assert_eq!(serde_json::from_str::<KeepAlive>("-1").unwrap(), KeepAlive::Forever);
        assert_eq!(serde_json::from_str::<KeepAlive>("\"10s\"").unwrap(), seconds(10));
    }

    #[test]
    fn a_text_that_is_no_duration_is_refused() {
        for bad in ["", "-", "5 minutes", "m", "5x", "1e400", "NaN"] {
            assert!(bad.parse::<KeepAlive>().is_err(), "{bad:?} was accepted");
        }
    }
}
