//! Where the times between tokens of a stream are lost: a scripted model emits a token every so many microseconds, by
//! polling the clock as the engine polls a GPU, and the server's and the client's own code carry it to where `bench` takes
//! its time. No result of a model, and no record: it tells one way of waiting from another on this machine.
//!
//! `cargo run --release -p bench-cli --example stream_stages -- PERIOD_US TOKENS ROUNDS [one-thread]`
//!
//! `one-thread` runs the server and the client on one thread, for machines with two processors, of which the model has one.
//! Where fewer processors are idle than threads poll, what is seen are the slices of the scheduler.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use bench_cli::peers::ollama::OllamaClient;
use bench_cli::peers::stream::End;
use bench_cli::peers::{Clock, Request, Waiting};
use engine::chat_template::{ChatError, Message};
use engine::cuda::Counters;
use engine::generate::{
    DeviceChoice, Event, Finish, FinishReason, GenerateError, GenerateRequest, KvType, LoadOptions,
};
use engine::server::{
    Backend, DeviceFacts, KeepAlive, LoadFailure, LoadWish, Loader, ModelFacts, ServeOptions, ServedModel, serve,
};
use harness_spec::units::Nanos;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// What it says it computes on, by which the server chooses how it waits: threads, or with none a GPU.
const ON_PROCESSOR: Option<usize> = Some(1);
const ON_GPU: Option<usize> = None;

/// Its name.
const MODEL: &str = "metronome";

/// Emits tokens by the clock and writes down when.
struct Metronome {
    period: Duration,
    threads: Option<usize>,
    clock: Clock,
    emitted: Arc<Mutex<Vec<Nanos>>>,
    most: usize,
    generated: usize,
    next: Instant,
}

impl Backend for Metronome {
    fn context(&self) -> usize {
        1 << 20
    }

    fn device(&self) -> DeviceFacts {
        DeviceFacts {
            device: DeviceChoice::Cpu,
            name: None,
            vram_bytes: 0,
            kv: KvType::F16,
            table_hash: "none: scripted".to_owned(),
        }
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn counters(&mut self) -> Option<Counters> {
        None
    }

    fn prompt_ids(&self, text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    fn chat_prompt(&self, _: &[Message], _: Option<&str>) -> Result<String, ChatError> {
        Err(ChatError::Absent)
    }

    fn begin(&mut self, _: usize, request: &GenerateRequest) -> Result<(), GenerateError> {
        (self.most, self.generated, self.next) = (request.max_tokens, 0, Instant::now() + self.period);
        self.emitted.lock().expect("nobody panics with it").clear();
        Ok(())
    }

    fn turn(
        &mut self,
        slot: usize,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, GenerateError> {
        if self.generated == 0 {
            let prefilled = Event::Prefilled { prompt_tokens: 1, cached_tokens: 0, elapsed: Duration::ZERO };
            if on_event(prefilled).is_break() {
                return Ok(Some(self.cancel(slot)));
            }
        }
        while Instant::now() < self.next {
            std::hint::spin_loop();
        }
        self.next += self.period;
        self.generated += 1;
        self.emitted.lock().expect("nobody panics with it").push(self.clock.now());
        let is_broken_off = on_event(Event::Token { id: 1, text: " token" }).is_break();
        let reason = match is_broken_off {
            true => FinishReason::Cancelled,
            false if self.generated < self.most => return Ok(None),
            false => FinishReason::Length,
        };
        Ok(Some(self.finish(reason)))
    }

    fn cancel(&mut self, _: usize) -> Finish {
        self.finish(FinishReason::Cancelled)
    }
}

impl Metronome {
    fn finish(&self, reason: FinishReason) -> Finish {
        let (prompt_time, decode_time) = (Duration::ZERO, Duration::ZERO);
        Finish { reason, prompt_tokens: 1, prompt_time, generated: self.generated, decode_time }
    }
}

struct MetronomeLoader {
    period: Duration,
    threads: Option<usize>,
    clock: Clock,
    emitted: Arc<Mutex<Vec<Nanos>>>,
}

impl Loader for MetronomeLoader {
    fn slots(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn load(&self, _: &Path, _: &LoadWish) -> Result<Box<dyn Backend>, LoadFailure> {
        Ok(Box::new(Metronome {
            period: self.period,
            threads: self.threads,
            clock: self.clock,
            emitted: self.emitted.clone(),
            most: 0,
            generated: 0,
            next: Instant::now(),
        }))
    }

    fn inspect(&self, _: &Path) -> Result<ModelFacts, LoadFailure> {
        Ok(ModelFacts::default())
    }
}

/// The value that so many of a hundred lie below, by nearest rank, in microseconds.
fn percentile(sorted: &[u64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1] as f64 / 1e3
}

fn gaps(times: &[Nanos]) -> Vec<u64> {
    times.windows(2).map(|w| w[1].0 - w[0].0).collect()
}

fn row(name: &str, mut ns: Vec<u64>) {
    ns.sort_unstable();
    let [p1, p50, p90, p99, most] = [1.0, 50.0, 90.0, 99.0, 100.0].map(|p| percentile(&ns, p));
    println!(
        "  {name:24} n {:6}  p1 {p1:7.1}  p50 {p50:7.1}  p90 {p90:7.1}  p99 {p99:7.1}  max {most:8.1} us  p99/p50 {:.3}",
        ns.len(),
        p99 / p50
    );
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves a model on a thread of its own, or on that of the client, and returns where.
fn serve_on(client: Option<&Runtime>, loader: MetronomeLoader) -> anyhow::Result<Url> {
    let options = ServeOptions {
        loader: Arc::new(loader),
        models: vec![ServedModel { name: MODEL.parse()?, path: std::env::current_exe()? }],
        keep_alive: KeepAlive::Forever,
        ..ServeOptions::new(LoadOptions::default())
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}", listener.local_addr()?).parse()?;
    let served = async move { serve(options, TcpListener::from_std(listener)?, std::future::pending()).await };
    match client {
        Some(runtime) => drop(runtime.spawn(served)),
        None => {
            let own = runtime()?;
            std::thread::spawn(move || own.block_on(served));
        }
    }
    Ok(url)
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| args.get(at).map_or(Ok(default), |a| a.parse().context("a number"));
    let (period, tokens, rounds) = (Duration::from_micros(number(0, 330)?), number(1, 1000)?, number(2, 3)?);
    let one_thread = args.get(3).is_some_and(|a| a == "one-thread");
    let (client_runtime, clock) = (runtime()?, Clock::start());
    let emitted = Arc::new(Mutex::new(Vec::new()));
    let client_beside = |threads| {
        let loader = MetronomeLoader { period, threads, clock, emitted: emitted.clone() };
        let url = serve_on(one_thread.then_some(&client_runtime), loader)?;
        OllamaClient::new(url, Duration::from_secs(10))
    };
    let (on_processor, on_gpu) = (client_beside(ON_PROCESSOR)?, client_beside(ON_GPU)?);
    let mut ways = Vec::new();
    for (server, client) in [("the processor", on_processor), ("a GPU", on_gpu)] {
        for waiting in [Waiting::Asleep, Waiting::Awake] {
            let name = format!("server as beside {server}, client {waiting}");
            ways.push((name, client.clone().waiting(waiting), [const { Vec::new() }; 3]));
        }
    }
    let request = Request { prompt: "x", length: tokens, seed: 0, context: 1 << 20, threads: 1, ignore_eos: true };
    let never = CancellationToken::new();
    for round in 0..=rounds {
        for (_, client, [emits, delays, arrivals]) in &mut ways {
            let reply = client_runtime.block_on(client.generate(MODEL, &request, &clock, &never));
            let sent = emitted.lock().expect("nobody panics with it");
            anyhow::ensure!(reply.end == End::Length && reply.token_ns.len() == sent.len(), "{:?}", reply.end);
            // The first round is warm-up.
            if round > 0 {
                emits.extend(gaps(&sent));
                delays.extend(sent.iter().zip(&reply.token_ns).map(|(a, b)| b.0 - a.0));
                arrivals.extend(gaps(&reply.token_ns));
            }
        }
    }
    for (name, _, [emits, delays, arrivals]) in ways {
        println!("{name}");
        row("between emissions", emits);
        row("emission to client", delays);
        row("between arrivals", arrivals);
    }
    Ok(())
}
