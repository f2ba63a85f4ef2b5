//! The `options` of a request: sampling, lengths, and how the model is loaded.

use serde::Deserialize;

use crate::generate::SamplingParams;
use crate::server::api_error::ApiError;
use crate::server::backend::LoadWish;
use crate::server::job::Settings;
use crate::server::stops::Stops;

/// Ollama's options. Those that only steer Ollama's own memory use (`num_gpu`, `num_batch`, …) are ignored, as are
/// unknown ones; those that would change the answer and are not implemented are refused.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Options {
    num_predict: Option<i64>,
    num_ctx: Option<usize>,
    num_thread: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<i64>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    repeat_penalty: Option<f32>,
    repeat_last_n: Option<i64>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    mirostat: Option<i64>,
    seed: Option<i64>,
    stop: Option<Stops>,
    /// Ours: goes on past end tokens, so that a benchmark gets the length it asks for.
    #[serde(default)]
    ignore_eos: bool,
}

impl Options {
    /// How the model is to be loaded.
    pub fn wish(&self) -> LoadWish {
        // Ollama's clients send 0 for "as you like".
        let some = |n: Option<usize>| n.filter(|n| *n > 0);
        LoadWish { context: some(self.num_ctx), threads: some(self.num_thread) }
    }

    /// How the answer is to be generated.
    pub fn settings(self) -> Result<Settings, ApiError> {
        let changes = |value: Option<f32>, off: f32| value.is_some_and(|value| value != off);
        let refused = [
            ("presence_penalty", changes(self.presence_penalty, 0.0)),
            ("frequency_penalty", changes(self.frequency_penalty, 0.0)),
            ("typical_p", changes(self.typical_p, 1.0) && changes(self.typical_p, 0.0)),
            ("mirostat", self.mirostat.is_some_and(|mode| mode != 0)),
        ];
        if let Some((param, _)) = refused.into_iter().find(|(_, is_set)| *is_set) {
            return Err(ApiError::Unsupported { param, what: "this way of sampling" });
        }
        let context = self.wish().context;
        Ok(Settings {
            // -1 is without end and -2 to the end of the context, which is the same: every context ends.
            max_tokens: self.num_predict.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
            context,
            sampling: SamplingParams {
                temperature: self.temperature.unwrap_or(0.8),
                top_k: self.top_k.map_or(40, |k| usize::try_from(k).unwrap_or(0)),
                top_p: self.top_p.unwrap_or(0.9),
                min_p: self.min_p.unwrap_or(0.0),
                repeat_penalty: self.repeat_penalty.unwrap_or(1.1),
                // -1 is the whole context.
                repeat_last_n: self.repeat_last_n.map_or(64, |n| usize::try_from(n).unwrap_or(usize::MAX)),
                // Ollama's own default is -1: another seed each time.
                seed: self.seed.and_then(|seed| u64::try_from(seed).ok()),
            },
            stop: self.stop.map(Vec::from).unwrap_or_default(),
            ignore_eos: self.ignore_eos,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> Options {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_option_reaches_the_engine() {
        let options = options(
            r#"{"num_predict":7,"num_ctx":512,"num_thread":2,"temperature":0,"top_k":3,"top_p":0.5,"min_p":0.1,
                "repeat_penalty":1.5,"repeat_last_n":8,"seed":42,"stop":["a","b"],"ignore_eos":true,"num_gpu":99}"#,
        );
        assert_eq!(options.wish(), LoadWish { context: Some(512), threads: Some(2) });
        let settings = options.settings().unwrap();
        assert_eq!((settings.max_tokens, settings.context), (Some(7), Some(512)));
        assert_eq!(settings.stop, ["a", "b"]);
        assert!(settings.ignore_eos);
        let want = SamplingParams {
            temperature: 0.0,
            top_k: 3,
            top_p: 0.5,
            min_p: 0.1,
            repeat_penalty: 1.5,
            repeat_last_n: 8,
            seed: Some(42),
        };
        assert_eq!(settings.sampling, want);
    }

    #[test]
    fn the_defaults_are_those_of_ollama() {
        let settings = Options::default().settings().unwrap();
        assert_eq!(settings.max_tokens, None);
        assert_eq!(settings.sampling.temperature, 0.8);
        assert_eq!((settings.sampling.top_k, settings.sampling.seed), (40, None));
        for unlimited in ["-1", "-2", "0"] {
            let settings =
                options(&format!(r#"{{"num_predict":{unlimited},"seed":-1,"stop":"x"}}"#)).settings().unwrap();
            assert_eq!((settings.max_tokens, settings.sampling.seed), (None, None));
            assert_eq!(settings.stop, ["x"]);
        }
    }

    #[test]
    fn options_that_would_change_the_answer_and_do_not_exist_are_refused() {
        for refused in [r#"{"mirostat":1}"#, r#"{"presence_penalty":0.5}"#, r#"{"typical_p":0.7}"#] {
            assert!(matches!(options(refused).settings(), Err(ApiError::Unsupported { .. })), "{refused}");
        }
        assert!(options(r#"{"mirostat":0,"presence_penalty":0.0,"typical_p":1.0}"#).settings().is_ok());
    }
}
