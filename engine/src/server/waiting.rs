//! How the thread that serves HTTP waits for the next token of a stream.
//!
//! A thread that sleeps takes microseconds to wake up where its processor was idle for a moment, hundreds in a virtual
//! machine whose processor was given back to the host, and never the same time twice: the client of a small model on a GPU,
//! whose tokens are 300 us apart, would see little but that. So beside a GPU the thread does not sleep between two tokens:
//! it polls, which costs a processor while tokens come every few milliseconds. Beside kernels on the processor it sleeps: they need
//! every core, and a token takes them milliseconds.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long a token may take until the thread sleeps after all: a token that takes longer hardly shows a wake-up, and it is
/// short against a long prompt or a queue.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// Processors that there must be: the thread that polls the GPU, this one, the client's, and one for everybody else.
const LEAST_PROCESSORS: usize = 4;

/// How the thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Until it is woken up.
    Asleep,
    /// Polling, up to [`PATIENCE`].
    Awake,
}

impl Waiting {
    /// Beside a model that computes on so many threads, `None` being a GPU, on this machine.
    pub fn beside(threads: Option<usize>) -> Waiting {
        static PROCESSORS: LazyLock<usize> =
            LazyLock::new(|| std::thread::available_parallelism().map_or(1, Into::into));
        Waiting::on(*PROCESSORS, threads)
    }

    fn on(processors: usize, threads: Option<usize>) -> Waiting {
        if threads.is_none() && processors >= LEAST_PROCESSORS { Waiting::Awake } else { Waiting::Asleep }
    }

    /// Whether a wait that began then goes on awake.
    pub fn is_awake(self, since: Instant) -> bool {
        self == Waiting::Awake && since.elapsed() < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_beside_a_gpu_and_with_processors_to_spare_the_thread_stays_awake() {
        assert_eq!(Waiting::on(16, None), Waiting::Awake);
        assert_eq!(Waiting::on(LEAST_PROCESSORS - 1, None), Waiting::Asleep);
        assert_eq!(Waiting::on(16, Some(8)), Waiting::Asleep);
    }
}
