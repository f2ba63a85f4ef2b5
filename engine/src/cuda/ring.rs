//! Where the host hears of tokens: words of its own memory that the device writes, one a position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::cuda::CudaError;
use kernels::cuda::driver::{Device, HostWords, Stream};

/// A position has the word of its number modulo this. The kernels know it.
const WORDS: usize = 1024;

/// The words.
#[derive(Debug)]
pub struct Ring(HostWords);

impl Ring {
    /// With no token in it.
    ///
    /// # Errors
    /// The driver's error.
    pub fn new(device: &Arc<Device>) -> Result<Ring, CudaError> {
        HostWords::new(device, WORDS).map(Ring)
    }

    /// Where the device finds it.
    pub fn address(&self) -> u64 {
        self.0.address()
    }

    /// Takes away what may have been written behind a position: it would be taken for the token of another.
    pub fn forget(&self, pos: usize) {
        self.0.take(pos % WORDS);
    }

    /// Waits until the device has written the token of a position; `op` is the step that writes it. The host polls: it has
    /// nothing else to do, and a wait in the driver would cost it microseconds.
    ///
    /// # Errors
    /// The driver's error, or steps that ended without a token.
    pub fn wait_for(&self, stream: &Stream, pos: usize, op: &str) -> Result<u32, CudaError> {
        let started = Instant::now();
        let mut spins = 0u32;
        loop {
            let word = self.0.take(pos % WORDS);
            if word != 0 {
                return Ok(word - 1);
            }
            spins += 1;
            if spins.is_multiple_of(1024) && started.elapsed() > Duration::from_millis(1) {
                let doing = || format!("decoding the token behind position {pos}");
                // A fault shows here, and a step that ended without a token cannot be waited for.
                let done = stream.is_done(doing)?;
                if done && started.elapsed() > Duration::from_secs(10) {
                    return Err(CudaError::NoKernel {
                        op: op.to_owned(),
                        shape: format!("position {pos}"),
                        reason: "the steps ended and no token came".to_owned(),
                    });
                }
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}
