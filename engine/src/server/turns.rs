//! The engine's thread: it takes jobs from the queue in their order, has the answers under way take turns, loads and unloads
//! models, and sleeps when there is nothing to do.
//!
//! A round is a token of every answer whose prompt is in the cache, and then one batch of one prompt, so that an answer is
//! never held up by more than a batch of somebody else's prompt. A job that cannot begin beside those under way, as it needs
//! another model or finds no slot, waits until it can, and none behind it goes first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use super::api_error::ApiError;
use super::backend::{Backend, LoadWish, Loader};
use super::job::{Done, DoneReason, Input, Job, Reply};
use super::keep_alive::KeepAlive;
use super::under_way::{self, UnderWay};
use super::worker::{Loaded, Shared};
use crate::cuda::Counters;
use crate::generate::{Finish, GenerateError};
use crate::model::LoadError;

/// The engine's thread.
pub(super) struct Turns {
    loader: Arc<dyn Loader>,
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
    default_keep_alive: KeepAlive,
    current: Option<Current>,
    /// The first of the queue, where it has to wait for those under way.
    held: Option<Job>,
    /// The answers under way, by slot.
    slots: Vec<Option<UnderWay>>,
    /// The slot whose prompt had the last turn.
    last_prompt: usize,
}

/// The model in memory.
struct Current {
    path: PathBuf,
    /// What the request asked for that it was loaded for.
    wish: LoadWish,
    backend: Box<dyn Backend>,
    /// What the metrics have been told.
    counted: Option<Counters>,
    /// How long it stays after its last answer: what the last request that it took says.
    stays: KeepAlive,
    /// When it goes, where nothing is under way.
    unload_at: Option<Instant>,
}

/// What a job has come to when it was begun.
enum Begun {
    /// It is done.
    Done(Done),
    /// Its answer is under way in this slot, and its model took so long to load.
    Answer { slot: usize, load_time: Duration },
}

impl Turns {
    /// With no model in memory.
    pub fn new(
        loader: Arc<dyn Loader>,
        jobs: Receiver<Job>,
        shared: Arc<Shared>,
        default_keep_alive: KeepAlive,
    ) -> Turns {
        let slots = (0..loader.slots().get()).map(|_| None).collect();
        Turns { loader, jobs, shared, default_keep_alive, current: None, held: None, slots, last_prompt: 0 }
    }

    /// Works until the queue is closed and empty.
    pub fn run(mut self) {
        loop {
            if self.is_idle() {
                match self.wait() {
                    Ok(job) => self.held = self.take(job),
                    Err(RecvTimeoutError::Timeout) => self.unload(),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            while let Some(job) = self.held.take().or_else(|| self.jobs.try_recv().ok()) {
                self.held = self.take(job);
                if self.held.is_some() {
                    break;
                }
            }
            self.round();
        }
        self.unload();
    }

    /// Whether nothing is under way: whatever comes next can begin.
    fn is_idle(&self) -> bool {
        self.slots.iter().all(Option::is_none) && self.held.is_none()
    }

    /// Sleeps until there is a job, or until the model's time has come.
    fn wait(&self) -> Result<Job, RecvTimeoutError> {
        match self.current.as_ref().and_then(|current| current.unload_at) {
            Some(at) => self.jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// A token of each answer, and one batch of one prompt.
    fn round(&mut self) {
        let is_prefilled = |slot: &Option<UnderWay>| slot.as_ref().map(|answer| answer.is_prefilled);
        for slot in 0..self.slots.len() {
            if is_prefilled(&self.slots[slot]) == Some(true) {
                self.turn(slot);
            }
        }
        // Prompts take turns as well, or a short one would wait for all of a long one.
        let count = self.slots.len();
        let mut next = (1..=count).map(|i| (self.last_prompt + i) % count);
        if let Some(slot) = next.find(|&slot| is_prefilled(&self.slots[slot]) == Some(false)) {
            self.last_prompt = slot;
            self.turn(slot);
        }
    }

    /// Gives the answer in a slot its next turn.
    fn turn(&mut self, slot: usize) {
        let (Some(answer), Some(current)) = (&mut self.slots[slot], &mut self.current) else { return };
        let (backend, shared) = (current.backend.as_mut(), &*self.shared);
        match catch_unwind(AssertUnwindSafe(|| answer.turn(slot, backend, shared))) {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(finish))) => self.finish(slot, &finish),
            Ok(Err(error)) => {
                let Some(answer) = self.slots[slot].take() else { return };
                let error = ApiError::from(error);
                self.mind_the_device(&error);
                self.keep();
                self.count_running(0);
                answer.job.replies.send(Reply::Failed(error));
            }
            Err(_) => self.give_up(|| ApiError::EngineFailed),
        }
    }

    /// The answer in a slot is complete, or nobody waits for it.
    fn finish(&mut self, slot: usize, finish: &Finish) {
        let Some(answer) = self.slots[slot].take() else { return };
        if let Some(current) = &mut self.current {
            let now = current.backend.counters();
            if let (Some(before), Some(now)) = (current.counted, now) {
                self.shared.metrics.on_device(before, now);
            }
            current.counted = now;
            if let Some(loaded) = self.shared.lock_loaded().as_mut() {
                loaded.counters = now;
            }
        }
        let is_cancelled = DoneReason::of(finish.reason).is_none();
        self.shared.metrics.finished(finish.prompt_tokens, finish.generated, is_cancelled);
        self.keep();
        self.count_running(0);
        answer.job.replies.send(answer.last_reply(finish));
    }

    /// Begins a job, or answers why not. Hands it back where it has to wait for those under way.
    fn take(&mut self, job: Job) -> Option<Job> {
        if job.replies.is_closed() {
            self.shared.metrics.finished(0, 0, true);
            return None;
        }
        if self.shared.is_closing.load(Ordering::SeqCst) {
            job.replies.send(Reply::Failed(ApiError::ShuttingDown));
            return None;
        }
        if !self.can_begin(&job) {
            return Some(job);
        }
        self.count_running(1);
        let begun = catch_unwind(AssertUnwindSafe(|| self.begin(&job)));
        let reply = match begun {
            Ok(Ok(Begun::Answer { slot, load_time })) => {
                self.slots[slot] = Some(UnderWay::new(job, load_time));
                return None;
            }
            Ok(Ok(Begun::Done(done))) => Reply::Done(done),
            Ok(Err(error)) => {
                self.mind_the_device(&error);
                Reply::Failed(error)
            }
            Err(_) => {
                self.give_up(|| ApiError::EngineFailed);
                Reply::Failed(ApiError::EngineFailed)
            }
        };
        self.count_running(0);
        job.replies.send(reply);
        None
    }

    /// Whether a job can begin beside those under way.
    fn can_begin(&self, job: &Job) -> bool {
        let (true, Some(current)) = (self.slots.iter().any(Option::is_some), &self.current) else { return true };
        match &job.input {
            Input::Unload => current.path != job.model.path,
            Input::Load => current.serves(job),
            Input::Generate { .. } => current.serves(job) && self.slots.iter().any(Option::is_none),
        }
    }

    fn begin(&mut self, job: &Job) -> Result<Begun, ApiError> {
        let done = |reason, load_time| {
            Begun::Done(Done {
                reason,
                prompt_tokens: 0,
                prompt_time: Duration::ZERO,
                generated: 0,
                decode_time: Duration::ZERO,
                load_time,
                total_time: job.accepted.elapsed(),
            })
        };
        match &job.input {
            Input::Unload => {
                if self.current.as_ref().is_some_and(|current| current.path == job.model.path) {
                    self.unload();
                }
                Ok(done(DoneReason::Unload, Duration::ZERO))
            }
            Input::Load => {
                let load_time = self.load(job)?;
                self.keep();
                Ok(done(DoneReason::Load, load_time))
            }
            Input::Generate { prompt, settings } => {
                let load_time = self.load(job)?;
                let slot = self.slots.iter().position(Option::is_none).expect("a job only begins where a slot is free");
                let current = self.current.as_mut().expect("the model was loaded just before");
                let begun = under_way::begin(job, prompt, settings, slot, current.backend.as_mut());
                if begun.is_err() {
                    self.keep();
                }
                begun.map(|()| Begun::Answer { slot, load_time })
            }
        }
    }

    /// Makes the job's model the current one, to stay as long as the job says, and returns the time that loading took.
    fn load(&mut self, job: &Job) -> Result<Duration, ApiError> {
        let stays = job.keep_alive.unwrap_or(self.default_keep_alive);
        if let Some(current) = self.current.as_mut().filter(|current| current.serves(job)) {
            current.stays = stays;
            if let Some(loaded) = self.shared.lock_loaded().as_mut() {
                (loaded.stays, loaded.idle_since) = (stays, None);
                loaded.model = job.model.name.clone();
            }
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
        let counted = backend.counters();
        *self.shared.lock_loaded() = Some(Loaded {
            model: job.model.name.clone(),
            context: backend.context(),
            memory_bytes: backend.memory_bytes(),
            device: backend.device(),
            counters: counted,
            stays,
            idle_since: None,
        });
        let (path, wish) = (job.model.path.clone(), job.wish);
        self.current = Some(Current { path, wish, backend, counted, stays, unload_at: None });
        Ok(took)
    }

    fn unload(&mut self) {
        if self.current.take().is_some() {
            *self.shared.lock_loaded() = None;
            tracing::info!("unloaded");
        }
    }

    /// At the end of a job: the model's time begins, unless others are under way.
    fn keep(&mut self) {
        let Some(current) = self.current.as_mut().filter(|_| self.slots.iter().all(Option::is_none)) else { return };
        current.unload_at = match current.stays {
            KeepAlive::For(time) if time.is_zero() => return self.unload(),
            // A time beyond what the clock can count is forever.
            KeepAlive::For(time) => Instant::now().checked_add(time),
            KeepAlive::Forever => None,
        };
        if let Some(loaded) = self.shared.lock_loaded().as_mut() {
            loaded.idle_since = Some(SystemTime::now());
        }
    }

    /// Lets go of a model whose device has failed, so that the next request loads it anew; what else was under way fails with
    /// it. Where the driver has lost the context nothing works any more in this process, and the server ends: whoever watches
    /// over it starts another.
    fn mind_the_device(&mut self, error: &ApiError) {
        let cause = match error {
            ApiError::Generate(GenerateError::Device(cause)) => cause,
            ApiError::Load { cause, .. } => match cause.downcast_ref::<LoadError>() {
                Some(LoadError::Cuda(cause)) => cause,
                _ => return,
            },
            _ => return,
        };
        self.give_up(|| GenerateError::Device(cause.clone()).into());
        if cause.is_fatal() {
            self.shared.lost.send_replace(Some(cause.clone()));
        }
    }

    /// Lets go of the model in whatever state it is, so that no further request meets it. All answers under way fail.
    fn give_up(&mut self, why: impl Fn() -> ApiError) {
        self.unload();
        let failed: Vec<UnderWay> = self.slots.iter_mut().filter_map(Option::take).collect();
        self.count_running(0);
        failed.iter().for_each(|answer| answer.job.replies.send(Reply::Failed(why())));
    }

    /// Counts the answers under way, and `more` beside them.
    fn count_running(&self, more: usize) {
        let under_way = self.slots.iter().flatten().count();
        self.shared.running.store(under_way + more, Ordering::Relaxed);
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
