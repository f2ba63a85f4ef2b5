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

/// Processors that there must be: the thread that polls the GPU, the server's, the client's, and one for everybody else.
const LEAST_PROCESSORS: usize = 4;

/// Whether a thread between an engine and whoever reads its tokens may poll for the next one instead of sleeping: where all
/// is computed on a GPU, and this machine has processors to spare. It holds for a client on the same machine as for the
/// server, so that both ask here.
pub fn may_poll(on_gpu: bool) -> bool {
    static PROCESSORS: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, Into::into));
    may_poll_on(*PROCESSORS, on_gpu)
}

fn may_poll_on(processors: usize, on_gpu: bool) -> bool {
    on_gpu && processors >= LEAST_PROCESSORS
}

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
        if may_poll(threads.is_none()) { Waiting::Awake } else { Waiting::Asleep }
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
    fn only_beside_a_gpu_and_with_processors_to_spare_a_thread_polls() {
        assert!(may_poll_on(LEAST_PROCESSORS, true));
        assert!(!may_poll_on(LEAST_PROCESSORS - 1, true));
        assert!(!may_poll_on(16, false));
        assert_eq!(Waiting::beside(Some(8)), Waiting::Asleep);
    }
}
