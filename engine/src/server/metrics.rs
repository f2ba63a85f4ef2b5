//! Counters and histograms of the server, in the text form that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::cuda::Counters;

/// What the server has done since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Answers by endpoint and status.
    requests: BTreeMap<(String, u16), u64>,
    prompt_tokens: u64,
    generated_tokens: u64,
    cancelled: u64,
    loads: u64,
    load_seconds: f64,
    device: Counters,
    ttft: Histogram,
    inter_token: Histogram,
}

/// Numbers that are states and not counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauges {
    pub clients: usize,
    pub waiting: usize,
    pub running: usize,
    pub models_loaded: usize,
}

/// Upper bounds of the buckets, in seconds: from a token of a small model to a long prompt on a slow machine.
const BOUNDS: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, value: Duration) {
        let seconds = value.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        header(out, name, help, "histogram");
        let mut below = 0;
        for (bound, n) in BOUNDS.iter().zip(self.buckets) {
            below += n;
            line(out, format_args!("{name}_bucket{{le=\"{bound}\"}} {below}"));
        }
        line(out, format_args!("{name}_bucket{{le=\"+Inf\"}} {}", self.count));
        line(out, format_args!("{name}_sum {}", self.sum));
        line(out, format_args!("{name}_count {}", self.count));
    }
}

impl Metrics {
    // The counters stay usable after a panic elsewhere: each is changed in one step.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn answered(&self, endpoint: &str, status: u16) {
        *self.inner().requests.entry((endpoint.to_owned(), status)).or_default() += 1;
    }

    pub(super) fn first_token(&self, after: Duration) {
        self.inner().ttft.observe(after);
    }

    pub(super) fn next_token(&self, after: Duration) {
        self.inner().inter_token.observe(after);
    }

    pub(super) fn finished(&self, prompt_tokens: usize, generated: usize, cancelled: bool) {
        let mut inner = self.inner();
        inner.prompt_tokens += prompt_tokens as u64;
        inner.generated_tokens += generated as u64;
        inner.cancelled += u64::from(cancelled);
    }

    pub(super) fn loaded(&self, took: Duration) {
        let mut inner = self.inner();
        inner.loads += 1;
        inner.load_seconds += took.as_secs_f64();
    }

    /// Adds what was done on a GPU between two states of a model's counters.
    pub(super) fn on_device(&self, before: Counters, after: Counters) {
        self.inner().device.add(&after.since(&before));
    }

    /// The text that Prometheus reads.
    pub(super) fn render(&self, gauges: Gauges) -> String {
        let inner = self.inner();
        let mut out = String::new();
        let name = "edgellm_http_requests_total";
        header(&mut out, name, "Answered requests by endpoint and status.", "counter");
        for ((endpoint, status), n) in &inner.requests {
            line(&mut out, format_args!("{name}{{endpoint=\"{endpoint}\",status=\"{status}\"}} {n}"));
        }
        let device = &inner.device;
        let counters = [
            ("edgellm_prompt_tokens_total", "Prompt tokens processed.", inner.prompt_tokens as f64),
            ("edgellm_generated_tokens_total", "Tokens generated.", inner.generated_tokens as f64),
            ("edgellm_cancelled_total", "Requests that their client left.", inner.cancelled as f64),
            ("edgellm_model_loads_total", "Models loaded.", inner.loads as f64),
            ("edgellm_model_load_seconds_total", "Time spent on loading models.", inner.load_seconds),
            ("edgellm_gpu_graph_launches_total", "Graphs launched on the GPU.", device.graph_launches as f64),
            ("edgellm_gpu_kernel_launches_total", "Kernels launched outside graphs.", device.kernel_launches as f64),
            ("edgellm_gpu_syncs_total", "Waits for the GPU.", device.syncs as f64),
            ("edgellm_gpu_bytes_sent_total", "Bytes sent to the GPU.", device.h2d_bytes as f64),
            ("edgellm_gpu_bytes_received_total", "Bytes fetched from the GPU.", device.d2h_bytes as f64),
            ("edgellm_gpu_decoded_tokens_total", "Tokens decoded on the GPU.", device.tokens as f64),
        ];
        for (name, help, value) in counters {
            header(&mut out, name, help, "counter");
            line(&mut out, format_args!("{name} {value}"));
        }
        let states = [
            ("edgellm_clients", "Clients whose answer is awaited or under way.", gauges.clients),
            ("edgellm_queue_depth", "Requests that wait for the engine.", gauges.waiting),
            ("edgellm_requests_running", "Requests in the engine.", gauges.running),
            ("edgellm_models_loaded", "Models in memory.", gauges.models_loaded),
        ];
        for (name, help, value) in states {
            header(&mut out, name, help, "gauge");
            line(&mut out, format_args!("{name} {value}"));
        }
        inner.ttft.write(&mut out, "edgellm_ttft_seconds", "Time from the request to its first token.");
        inner.inter_token.write(&mut out, "edgellm_inter_token_seconds", "Time from one token to the next.");
        out
    }
}

fn header(out: &mut String, name: &str, help: &str, kind: &str) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_count_and_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.answered("/api/generate", 200);
        metrics.answered("/api/generate", 200);
        metrics.answered("/api/chat", 404);
        metrics.first_token(Duration::from_millis(3));
        metrics.first_token(Duration::from_millis(30));
        metrics.finished(7, 5, true);
        let before = Counters { graph_launches: 3, d2h_bytes: 40, ..Counters::default() };
        let after = Counters { graph_launches: 10, d2h_bytes: 68, tokens: 7, ..Counters::default() };
        metrics.on_device(before, after);
        let text = metrics.render(Gauges { clients: 3, waiting: 2, running: 1, models_loaded: 1 });
        for want in [
            "edgellm_http_requests_total{endpoint=\"/api/generate\",status=\"200\"} 2",
            "edgellm_http_requests_total{endpoint=\"/api/chat\",status=\"404\"} 1",
            "edgellm_prompt_tokens_total 7",
            "edgellm_generated_tokens_total 5",
            "edgellm_cancelled_total 1",
            "edgellm_queue_depth 2",
            "edgellm_gpu_graph_launches_total 7",
            "edgellm_gpu_bytes_received_total 28",
            "edgellm_gpu_decoded_tokens_total 7",
            "edgellm_ttft_seconds_bucket{le=\"0.002\"} 0",
            "edgellm_ttft_seconds_bucket{le=\"0.005\"} 1",
            "edgellm_ttft_seconds_bucket{le=\"300\"} 2",
            "edgellm_ttft_seconds_bucket{le=\"+Inf\"} 2",
            "edgellm_ttft_seconds_count 2",
        ] {
            assert!(text.lines().any(|line| line == want), "{want} is missing in\n{text}");
        }
    }
}
