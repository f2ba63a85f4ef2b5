//! What the steps of a token cost.

use std::time::Duration;

use kernels::cuda::CudaError;
use kernels::cuda::exec::StepTime;

use super::work::Work;
use crate::cuda::breakdown::{self, TimedStep};

/// Launches of a profile that only warm.
const WARM_UPS: usize = 3;

impl Work {
    pub fn prefixes(&mut self, pos: usize, rounds: usize, budget: Duration) -> Result<Vec<TimedStep>, CudaError> {
        self.forget_queued()?;
        self.assert_in_context(pos);
        let parts = self.parts();
        // The whole token ahead of a prefix stands at `pos - 1`, so that the prefix is that of the token at `pos`.
        let restore = || parts.set_state(0, pos - 1);
        let timed = breakdown::prefixes(parts.exec, self.slot.graphs.program(pos), pos + 1, rounds, budget, &restore);
        for written in [pos - 1, pos] {
            self.slot.ring.forget(written);
        }
        timed
    }

    pub fn profile(&mut self, pos: usize, repeats: usize) -> Result<Vec<StepTime>, CudaError> {
        self.forget_queued()?;
        self.assert_in_context(pos);
        let exec = &self.exec;
        let program = self.slot.graphs.program(pos);
        let (graph, marks) = program.capture_marked(exec.stream())?;
        let run = || {
            self.parts().set_state(0, pos)?;
            graph.launch(exec.stream())?;
            exec.stream().wait(|| "timing the steps of a token".to_owned())?;
            program.times(&marks)
        };
        let all = (0..repeats.max(1) + WARM_UPS).map(|_| run()).collect::<Result<Vec<_>, _>>();
        // Whatever failed: what is left there would be taken for the token of a position.
        self.slot.ring.forget(pos);
        let timed = &all?[WARM_UPS..];
        let median = |i: usize| {
            let mut nanos: Vec<f64> = timed.iter().map(|run| run[i].nanos).collect();
            nanos.sort_by(f64::total_cmp);
            nanos[nanos.len() / 2]
        };
        let first = &timed[0];
        Ok(first.iter().enumerate().map(|(i, step)| StepTime { nanos: median(i), ..step.clone() }).collect())
    }
}
