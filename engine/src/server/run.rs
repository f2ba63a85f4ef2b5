//! Starting and ending the server.

use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use kernels::cuda::CudaError;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::api_error::ApiError;
use super::app::{App, router};
use super::backend::{LoadWish, Loader};
use super::catalog::{Catalog, ServedModel};
use super::engine_backend::EngineLoader;
use super::job::{Input, JobModel, Start};
use super::keep_alive::KeepAlive;
use super::worker::Worker;
use crate::generate::LoadOptions;
use crate::models::Store;

/// What a server is made of.
#[derive(Clone)]
pub struct ServeOptions {
    /// Loads the models: [`EngineLoader`], or a script in a test.
    pub loader: Arc<dyn Loader>,
    /// Models that are served under a name of their own, whatever the store has.
    pub models: Vec<ServedModel>,
    /// The store whose models are served; `None` serves only `models`.
    pub store: Option<Store>,
    /// Loads this model, by its name, before the first request.
    pub preload: Option<String>,
    /// How long a model stays loaded after a request that does not say so itself.
    pub keep_alive: KeepAlive,
    /// How many requests may wait beside those that are answered. One more is refused with status 503.
    pub queue_limit: usize,
    /// The largest request body in bytes.
    pub body_limit: usize,
    /// How long running answers may go on after the signal to end.
    pub grace: Duration,
}

impl ServeOptions {
    /// The defaults: no model and no store yet, five minutes of keep-alive, 64 waiting requests, bodies of 16 MiB.
    pub fn new(options: LoadOptions) -> ServeOptions {
        ServeOptions {
            loader: Arc::new(EngineLoader { options }),
            models: Vec::new(),
            store: None,
            preload: None,
            keep_alive: KeepAlive::default(),
            queue_limit: 64,
            body_limit: 16 << 20,
            grace: Duration::from_secs(10),
        }
    }
}

/// Why the server could not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not this machine's.
    #[error("could not listen on {addr}: {source}{}", hint_for(source))]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The model to be loaded first cannot be.
    #[error(transparent)]
    Preload(ApiError),
    /// The GPU failed in a way that only a new process gets over.
    #[error("{0}\nhint: the driver needs a new process after this error: start the server again")]
    DeviceLost(CudaError),
    /// A thread, the runtime or the listening socket failed.
    #[error("the server failed: {0}")]
    Io(#[from] io::Error),
}

fn hint_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "\nhint: another server uses it; stop that one or choose another --port",
        io::ErrorKind::AddrNotAvailable => "\nhint: it is no address of this machine; use 127.0.0.1 or 0.0.0.0",
        io::ErrorKind::PermissionDenied => "\nhint: ports below 1024 need privileges; choose another --port",
        _ => "",
    }
}

/// Serves until `shutdown` is ready, then lets running answers finish within the grace time and returns.
///
/// The listener's requests are taken up once the model to preload is loaded.
///
/// # Errors
/// [`ServeError::Preload`] where that model cannot be loaded, [`ServeError::DeviceLost`] where the GPU failed for good,
/// [`ServeError::Io`] where a thread cannot be started.
pub async fn serve(
    options: ServeOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    served(options, listener, Box::pin(shutdown), Box::new(|| {})).await
}

/// [`serve_then`], whose code is compiled here: that of a function with type parameters, all of HTTP with it, would be
/// compiled again in every program that serves.
fn served<'a>(
    options: ServeOptions,
    listener: TcpListener,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    on_ready: Box<dyn FnOnce() + Send + 'a>,
) -> Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send + 'a>> {
    Box::pin(serve_then(options, listener, shutdown, on_ready))
}

/// [`serve`], with a call when the server is ready.
async fn serve_then(
    options: ServeOptions,
    listener: TcpListener,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    on_ready: Box<dyn FnOnce() + Send + '_>,
) -> Result<(), ServeError> {
    let worker = Worker::start(options.loader.clone(), options.keep_alive, options.queue_limit)?;
    let catalog = Catalog::new(options.store, options.models, options.loader);
    let app = Arc::new(App { worker, catalog, body_limit: options.body_limit });
    if let Some(name) = &options.preload {
        preload(&app, name).await.map_err(ServeError::Preload)?;
    }
    on_ready();

    let (ending, mut has_ended) = watch::channel(false);
    let closing = app.clone();
    let until = async move {
        tokio::select! {
            () = shutdown => {}
            () = closing.worker.shared.until_lost() => {}
        }
        closing.worker.close();
        // The receiver lives as long as this function.
        let _ = ending.send(true);
    };
    // A token is a small packet that must not wait for the next one.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY was not set: {error}");
        }
    });
    let server = axum::serve(listener, router(app.clone())).with_graceful_shutdown(until).into_future();
    let out_of_grace = async {
        // The sender goes only after it has sent.
        let _ = has_ended.wait_for(|has_ended| *has_ended).await;
        tokio::time::sleep(options.grace).await;
        app.worker.cancel();
        // Enough for the last chunk of each answer; a client that reads nothing is not waited for.
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    tokio::select! {
        ended = server => ended?,
        () = out_of_grace => {}
    }
    app.worker.close();
    app.worker.cancel();
    let worker = app.clone();
    // Joined away from the runtime's thread, which may be the only one.
    let joined = tokio::task::spawn_blocking(move || worker.worker.join()).await;
    joined.map_err(|e| ServeError::Io(io::Error::other(e)))?;
    app.worker.shared.lost().map_or(Ok(()), |error| Err(ServeError::DeviceLost(error)))
}

async fn preload(app: &App, name: &str) -> Result<(), ApiError> {
    let JobModel { path, .. } = app.catalog.job_model(name)?;
    let model = JobModel { name: name.to_owned(), path };
    let mut answer = app.worker.submit(model, Input::Load, LoadWish::default(), None)?;
    match answer.started().await? {
        Start::Done(_) => Ok(()),
        Start::Tokens { .. } => unreachable!("loading makes no tokens"),
    }
}

/// What tells a blocking server to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOn {
    /// Ctrl-C and, on Unix, SIGTERM. A second one ends the process at once.
    Signals,
    /// The same, and the end of standard input: a child process whose parent has died must not go on serving.
    SignalsOrEndOfInput,
}

/// Binds `addr` (port 0 takes a free one), loads what is to be preloaded, calls `on_ready` with the address, and
/// serves until told to stop. HTTP is served on the calling thread; the engine has a thread of its own.
///
/// # Errors
/// [`ServeError`]; `on_ready` was not called where the server could not start.
pub fn serve_blocking(
    options: ServeOptions,
    addr: SocketAddr,
    stop_on: StopOn,
    on_ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), ServeError> {
    blocking(options, addr, stop_on, Box::new(on_ready))
}

/// [`serve_blocking`], compiled here for the reason of [`served`].
fn blocking(
    options: ServeOptions,
    addr: SocketAddr,
    stop_on: StopOn,
    on_ready: Box<dyn FnOnce(SocketAddr) + Send + '_>,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let listener = TcpListener::bind(addr).await.map_err(|source| ServeError::Bind { addr, source })?;
        let bound = listener.local_addr()?;
        let stop = stop_signal(stop_on)?;
        served(options, listener, Box::pin(stop), Box::new(move || on_ready(bound))).await
    });
    // A client that never reads its answer still has a task; it ends with the runtime, without being waited for.
    runtime.shutdown_background();
    ended
}

/// A future that is ready when the server is to end.
fn stop_signal(stop_on: StopOn) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (sender, mut receiver) = watch::channel(0u32);
    let signalled = sender.clone();
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        loop {
            signals.next().await;
            signalled.send_modify(|count| *count += 1);
            if *signalled.borrow() > 1 {
                tracing::warn!("ending at once");
                std::process::exit(130);
            }
            tracing::info!("ending; running answers may finish, a second signal ends at once");
        }
    });
    if stop_on == StopOn::SignalsOrEndOfInput {
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut buffer = [0; 64];
            // What is written there has no meaning; an error is as good as the end.
            while io::stdin().read(&mut buffer).is_ok_and(|n| n > 0) {}
            sender.send_modify(|count| *count = 1);
        })?;
    }
    Ok(async move {
        // The signal task holds a sender for as long as the runtime lives.
        let _ = receiver.wait_for(|count| *count > 0).await;
    })
}

struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Signals> {
        Ok(Signals {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        // Without a handler there is nothing to hear, and the system ends the process by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
