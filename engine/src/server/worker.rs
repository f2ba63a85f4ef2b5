//! The handlers' end of the engine's thread, and what both ends see.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use kernels::cuda::CudaError;
use tokio::sync::{Semaphore, watch};

use super::api_error::ApiError;
use super::backend::{DeviceFacts, LoadWish, Loader};
use super::job::{Answer, Input, Job, JobModel};
use super::keep_alive::KeepAlive;
use super::metrics::{Gauges, Metrics};
use super::turns::Turns;
use crate::cuda::Counters;

/// The handlers' end of the engine's thread.
pub(super) struct Worker {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// A place for each request that may run and for each that may wait.
    places: Arc<Semaphore>,
    place_count: usize,
    queue_limit: usize,
    pub shared: Arc<Shared>,
}

/// What both ends see.
pub(super) struct Shared {
    pub metrics: Arc<Metrics>,
    loaded: Mutex<Option<Loaded>>,
    /// Requests that the engine works on.
    pub running: AtomicUsize,
    /// No new work is begun.
    pub is_closing: AtomicBool,
    /// Running answers are broken off.
    pub is_cancelled: AtomicBool,
    /// The error after which the device is of no use to this process any more.
    pub lost: watch::Sender<Option<CudaError>>,
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
    /// How long it stays after its last answer.
    pub stays: KeepAlive,
    /// Since when no answer is under way; `None` while there is one.
    pub idle_since: Option<SystemTime>,
}

impl Loaded {
    /// When it will be unloaded, were the answers under way to end now; `None` is never.
    pub fn expires(&self) -> Option<SystemTime> {
        match self.stays {
            // A time beyond what the clock can count is forever.
            KeepAlive::For(time) => self.idle_since.unwrap_or_else(SystemTime::now).checked_add(time),
            KeepAlive::Forever => None,
        }
    }
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

    pub fn lock_loaded(&self) -> MutexGuard<'_, Option<Loaded>> {
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
        let place_count = queue_limit + loader.slots().get();
        let turns = Turns::new(loader, receiver, shared.clone(), keep_alive);
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || turns.run())?;
        Ok(Worker {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            places: Arc::new(Semaphore::new(place_count)),
            place_count,
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
        let (replies, receiver) = super::replies::channel();
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
        let clients = self.place_count - self.places.available_permits();
        let running = self.shared.running.load(Ordering::Relaxed);
        Gauges { clients, waiting: clients.saturating_sub(running), running, models_loaded: 0 }
    }

    /// Begins no new work: waiting jobs fail, running ones go on.
    pub fn close(&self) {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Breaks running answers off after their present turn.
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
