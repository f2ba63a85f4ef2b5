//! The engine's thread: it takes one job after the other, loads and unloads models, and sleeps when idle.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use kernels::cuda::CudaError;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{Semaphore, watch};

use super::api_error::ApiError;
use super::backend::{Backend, DeviceFacts, LoadWish, Loader};
use super::job::{Answer, Done, DoneReason, Input, Job, JobModel, Prompt, Reply, Settings};
use super::keep_alive::KeepAlive;
use super::metrics::{Gauges, Metrics};
use crate::chat_template::{ChatError, Message};
use crate::cuda::Counters;
use crate::generate::{Event, FinishReason, GenerateError, GenerateRequest};
use crate::model::LoadError;

/// The handlers' end of the engine's thread.
pub(super) struct Worker {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// A place for the running request and one for each that may wait.
    places: Arc<Semaphore>,
    queue_limit: usize,
    pub shared: Arc<Shared>,
}

/// What both ends see.
pub(super) struct Shared {
    pub metrics: Arc<Metrics>,
    loaded: Mutex<Option<Loaded>>,
    /// Requests that the engine works on: 0 or 1.
    running: AtomicUsize,
    /// No new work is begun.
    is_closing: AtomicBool,
    /// The running answer is broken off.
    is_cancelled: AtomicBool,
    /// The error after which the device is of no use to this process any more.
    lost: watch::Sender<Option<CudaError>>,
}

/// The model in memory, for `/api/ps`.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub model: String,
    pub context: usize,
    pub memory_bytes: u64,
    /// What it computes on.
    pub device: DeviceFacts,
    /// What it has done there, up to the last answer.
    pub counters: Option<Counters>,
    /// When it will be unloaded; `None` is never.
    pub expires: Option<SystemTime>,
}

impl Shared {
    pub fn loaded(&self) -> Option<Loaded> {
        self.lock_loaded().clone()
    }

    /// Waits for an error after which the device is of no use to this process any more. Most servers never see one.
    pub async fn until_lost(&self) {
        // The sender lives as long as `self`.
        let _ = self.lost.subscribe().wait_for(Option::is_some).await;
    }

    /// The error after which the device was lost.
    pub fn lost(&self) -> Option<CudaError> {
        self.lost.borrow().clone()
    }

    fn lock_loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    pub fn start(loader: Arc<dyn Loader>, keep_alive: KeepAlive, queue_limit: usize) -> std::io::Result<Worker> {
        let shared = Arc::new(Shared {
            metrics: Arc::new(Metrics::default()),
            loaded: Mutex::new(None),
            running: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            lost: watch::Sender::new(None),
        });
        let (sender, receiver) = channel();
        let state =
            State { loader, jobs: receiver, shared: shared.clone(), default_keep_alive: keep_alive, current: None };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || state.run())?;
        Ok(Worker {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            places: Arc::new(Semaphore::new(queue_limit + 1)),
            queue_limit,
            shared,
        })
    }

    /// Puts a job into the queue.
    pub fn submit(
        &self,
        model: JobModel,
        input: Input,
        wish: LoadWish,
        keep_alive: Option<KeepAlive>,
    ) -> Result<Answer, ApiError> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| ApiError::QueueFull { limit: self.queue_limit })?;
        let (replies, receiver) = unbounded_channel();
        let job = Job { model, input, wish, keep_alive, accepted: Instant::now(), replies };
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed queue and a thread that has gone are the same to a client.
        if jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            Ok(Answer::new(receiver, place))
        } else {
            Err(ApiError::ShuttingDown)
        }
    }

    /// How full the queue is.
    pub fn gauges(&self) -> Gauges {
        let clients = self.queue_limit + 1 - self.places.available_permits();
        let running = self.shared.running.load(Ordering::Relaxed);
        Gauges { clients, waiting: clients.saturating_sub(running), running, models_loaded: 0 }
    }

    /// Begins no new work: waiting jobs fail, the running one goes on.
    pub fn close(&self) {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Breaks the running answer off after its current token.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::SeqCst);
    }

    /// Waits for the thread. Call [`Worker::close`] and [`Worker::cancel`] before.
    pub fn join(&self) {
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of a job is caught inside, so there is nothing to hear from the thread itself.
            let _ = thread.join();
        }
    }
}

/// The engine's thread.
struct State {
    loader: Arc<dyn Loader>,
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
    default_keep_alive: KeepAlive,
    current: Option<Current>,
}

/// The model in memory.
struct Current {
    path: std::path::PathBuf,
    /// What the request asked for that it was loaded for.
    wish: LoadWish,
    backend: Box<dyn Backend>,
    unload_at: Option<Instant>,
}

impl State {
    fn run(mut self) {
        loop {
            let job = match self.wait() {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.unload();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if job.replies.is_closed() {
                self.shared.metrics.finished(0, 0, true);
                continue;
            }
            if self.shared.is_closing.load(Ordering::SeqCst) {
                send(&job, Reply::Failed(ApiError::ShuttingDown));
                continue;
            }
            self.shared.running.store(1, Ordering::Relaxed);
            let outcome = catch_unwind(AssertUnwindSafe(|| self.serve(&job)));
            self.shared.running.store(0, Ordering::Relaxed);
            let reply = match outcome {
                Ok(Ok(done)) => done.map(Reply::Done),
                Ok(Err(error)) => {
                    self.mind_the_device(&error);
                    Some(Reply::Failed(error))
                }
                Err(_) => {
                    // Whatever state the model is in after a panic, no further request may meet it.
                    self.unload();
                    Some(Reply::Failed(ApiError::EngineFailed))
                }
            };
            if let Some(reply) = reply {
                send(&job, reply);
            }
        }
        self.unload();
    }

    /// Lets go of a model whose device has failed, so that the next request loads it anew. Where the driver has lost the
    /// context nothing works any more in this process, and the server ends: whoever watches over it starts another.
    fn mind_the_device(&mut self, error: &ApiError) {
        let cause = match error {
            ApiError::Generate(GenerateError::Device(cause)) => cause,
            ApiError::Load { cause, .. } => match cause.downcast_ref::<LoadError>() {
                Some(LoadError::Cuda(cause)) => cause,
                _ => return,
            },
            _ => return,
        };
        self.unload();
        if cause.is_fatal() {
            self.shared.lost.send_replace(Some(cause.clone()));
        }
    }

    /// Sleeps until there is a job, or until the model's time has come.
    fn wait(&self) -> Result<Job, RecvTimeoutError> {
        match self.current.as_ref().and_then(|current| current.unload_at) {
            Some(at) => self.jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Does a job. `None` means that nobody is there any more to hear how it ended.
    fn serve(&mut self, job: &Job) -> Result<Option<Done>, ApiError> {
        let done = |reason, load_time| Done {
            reason,
            prompt_tokens: 0,
            prompt_time: Duration::ZERO,
            generated: 0,
            decode_time: Duration::ZERO,
            load_time,
            total_time: job.accepted.elapsed(),
        };
        let keep_alive = job.keep_alive.unwrap_or(self.default_keep_alive);
        match &job.input {
            Input::Unload => {
                if self.current.as_ref().is_some_and(|current| current.path == job.model.path) {
                    self.unload();
                }
                Ok(Some(done(DoneReason::Unload, Duration::ZERO)))
            }
            Input::Load => {
                let load_time = self.load(job)?;
                self.keep(&job.model.name, keep_alive);
                Ok(Some(done(DoneReason::Load, load_time)))
            }
            Input::Generate { prompt, settings } => {
                let load_time = self.load(job)?;
                let answered = self.generate(job, prompt, settings, load_time);
                self.keep(&job.model.name, keep_alive);
                answered
            }
        }
    }

    /// Makes the job's model the current one and returns the time that took.
    fn load(&mut self, job: &Job) -> Result<Duration, ApiError> {
        if self.current.as_ref().is_some_and(|current| current.serves(job)) {
            return Ok(Duration::ZERO);
        }
        // The old one goes first, so that two models are never in memory at once.
        self.unload();
        let start = Instant::now();
        let loaded = self.loader.load(&job.model.path, &job.wish);
        let mut backend = loaded.map_err(|cause| ApiError::Load { model: job.model.name.clone(), cause })?;
        let took = start.elapsed();
        self.shared.metrics.loaded(took);
        tracing::info!(model = job.model.name, seconds = took.as_secs_f64(), "loaded");
        *self.shared.lock_loaded() = Some(Loaded {
            model: job.model.name.clone(),
            context: backend.context(),
            memory_bytes: backend.memory_bytes(),
            device: backend.device(),
            counters: backend.counters(),
            expires: None,
        });
        self.current = Some(Current { path: job.model.path.clone(), wish: job.wish, backend, unload_at: None });
        Ok(took)
    }

    fn unload(&mut self) {
        if self.current.take().is_some() {
            *self.shared.lock_loaded() = None;
            tracing::info!("unloaded");
        }
    }

    /// Sets how long the model stays, from now on.
    fn keep(&mut self, name: &str, keep_alive: KeepAlive) {
        let Some(current) = &mut self.current else { return };
        let stays = match keep_alive {
            KeepAlive::For(time) if time.is_zero() => return self.unload(),
            KeepAlive::For(time) => Some(time),
            KeepAlive::Forever => None,
        };
        // A time beyond what the clock can count is forever.
        current.unload_at = stays.and_then(|time| Instant::now().checked_add(time));
        if let Some(loaded) = self.shared.lock_loaded().as_mut() {
            loaded.expires = stays.and_then(|time| SystemTime::now().checked_add(time));
            loaded.model = name.to_owned();
        }
    }

    fn generate(
        &mut self,
        job: &Job,
        prompt: &Prompt,
        settings: &Settings,
        load_time: Duration,
    ) -> Result<Option<Done>, ApiError> {
        let backend = &mut self.current.as_mut().expect("the model was loaded just before").backend;
        let ids = prompt_ids(backend.as_ref(), prompt)?;
        let context = settings.context.map_or(backend.context(), |asked| asked.min(backend.context()));
        if ids.is_empty() {
            return Err(GenerateError::EmptyPrompt.into());
        }
        if ids.len() >= context {
            return Err(GenerateError::PromptTooLong { tokens: ids.len(), context }.into());
        }
        settings.sampling.check().map_err(GenerateError::from)?;
        let room = context - ids.len();
        let request = GenerateRequest {
            prompt: ids,
            max_tokens: settings.max_tokens.map_or(room, |asked| asked.min(room)),
            sampling: settings.sampling.clone(),
            stop: settings.stop.clone(),
            ignore_eos: settings.ignore_eos,
        };
        send(job, Reply::Started { prompt: request.prompt.clone() });
        let shared = &self.shared;
        let mut last: Option<Instant> = None;
        let before = backend.counters();
        let given_up = || job.replies.is_closed() || shared.is_cancelled.load(Ordering::Relaxed);
        let finish = backend.generate(&request, &given_up, &mut |event| {
            if let Event::Token { id, text } = event {
                let now = Instant::now();
                match last.replace(now) {
                    None => shared.metrics.first_token(now - job.accepted),
                    Some(before) => shared.metrics.next_token(now - before),
                }
                if job.replies.send(Reply::Token { id, text: text.to_owned() }).is_err() {
                    return ControlFlow::Break(());
                }
            }
            if given_up() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let (Some(before), Some(after)) = (before, backend.counters()) {
            shared.metrics.on_device(before, after);
            if let Some(loaded) = shared.lock_loaded().as_mut() {
                loaded.counters = Some(after);
            }
        }
        let is_cancelled = finish.reason == FinishReason::Cancelled;
        shared.metrics.finished(finish.prompt_tokens, finish.generated, is_cancelled);
        let Some(reason) = DoneReason::of(finish.reason) else {
            // Either the client has left, who hears nothing of this, or the server is about to end.
            return Err(ApiError::ShuttingDown);
        };
        Ok(Some(Done {
            reason,
            prompt_tokens: finish.prompt_tokens,
            prompt_time: finish.prompt_time,
            generated: finish.generated,
            decode_time: finish.decode_time,
            load_time,
            total_time: job.accepted.elapsed(),
        }))
    }
}

impl Current {
    /// Whether a job can run on the model as it is loaded. A smaller context than the loaded one is no reason to
    /// load it again; other threads are.
    fn serves(&self, job: &Job) -> bool {
        // Asking again for more than the model can have must not load it again with every request.
        let is_at_its_most = |asked| self.wish.context.is_some_and(|before| asked <= before);
        let fits = job.wish.context.is_none_or(|asked| asked <= self.backend.context() || is_at_its_most(asked));
        let has_its_threads = match job.wish.threads {
            // A model on a GPU has none of its own, and any number will do.
            Some(asked) => self.backend.threads().is_none_or(|own| asked == own),
            // The server's own number, which the model has unless a request asked for another.
            None => self.wish.threads.is_none(),
        };
        self.path == job.model.path && has_its_threads && fits
    }
}

fn prompt_ids(backend: &dyn Backend, prompt: &Prompt) -> Result<Vec<u32>, ApiError> {
    match prompt {
        Prompt::Ids(ids) => Ok(ids.clone()),
        Prompt::Raw(text) => Ok(backend.prompt_ids(text)),
        Prompt::Chat { messages, template, before } => {
            let text = match backend.chat_prompt(messages, template.as_deref()) {
                // Base models have no template: what was said is all there is to continue.
                Err(ChatError::Absent) => plain(messages),
                rendered => rendered?,
            };
            Ok([before.as_slice(), &backend.prompt_ids(&text)].concat())
        }
    }
}

fn plain(messages: &[Message]) -> String {
    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n")
}

fn send(job: &Job, reply: Reply) {
    // A client that has left hears nothing, and that is all there is to it.
    let _ = job.replies.send(reply);
}
