//! Where the time of a run goes (R22), and a target whose every call is put on that account.

use harness_spec::record::CostReport;
use harness_spec::units::{Bytes, Nanos};
use harness_spec::{Canary, Cell, CellFailure, CellSample, CheckReport, Phase, Prepared, Target};

/// What time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Compile,
    Verify,
    Time,
    Search,
    Idle,
}

/// A device with a stopwatch that always runs on one part, so that the parts add up to the wall time by construction.
///
/// Moving data happens inside other calls; what the target says of it is taken from the part it happened in.
pub struct Timed<'a> {
    target: &'a mut dyn Target,
    began: Nanos,
    since: Nanos,
    transferred: Nanos,
    report: CostReport,
}

impl<'a> Timed<'a> {
    /// Starts the watch.
    pub fn start(target: &'a mut dyn Target) -> Timed<'a> {
        let now = target.now();
        let transferred = target.transfer_time().unwrap_or_default();
        Timed { target, began: now, since: now, transferred, report: CostReport::default() }
    }

    fn charge(&mut self, part: Part) {
        let now = self.target.now();
        let spent = now - self.since;
        let transferred = self.target.transfer_time().unwrap_or_default();
        let moved = Nanos((transferred - self.transferred).0.min(spent.0));
        let slot = match part {
            Part::Compile => &mut self.report.compile,
            Part::Verify => &mut self.report.verify,
            Part::Time => &mut self.report.time,
            Part::Search => &mut self.report.search,
            Part::Idle => &mut self.report.idle,
        };
        *slot = *slot + (spent - moved);
        self.report.transfer = self.report.transfer + moved;
        self.since = now;
        self.transferred = transferred;
    }

    fn during<T>(&mut self, part: Part, call: impl FnOnce(&mut dyn Target) -> T) -> (T, Nanos) {
        self.charge(Part::Search);
        let before = self.since;
        let answer = call(self.target);
        self.charge(part);
        (answer, self.since - before)
    }

    /// Time since the start of the run.
    pub fn elapsed(&self) -> Nanos {
        self.target.now() - self.began
    }

    /// Builds cells.
    pub fn prepare(&mut self, cells: &[Cell]) -> Vec<Result<Prepared, CellFailure>> {
        self.during(Part::Compile, |t| t.prepare(cells)).0
    }

    /// Says what will be built soon.
    pub fn prefetch(&mut self, cells: &[Cell]) {
        self.target.prefetch(cells);
    }

    /// Runs the correctness gate; also how long it took.
    pub fn check(&mut self, cell: &Cell, seed: u64) -> (Result<CheckReport, CellFailure>, Nanos) {
        self.during(Part::Verify, |t| t.check(cell, seed))
    }

    /// Takes samples; also how long it took.
    pub fn sample(&mut self, cell: &Cell, count: u32) -> (Result<Vec<CellSample>, CellFailure>, Nanos) {
        self.during(Part::Time, |t| t.sample(cell, count))
    }

    /// Says what the samples that follow are for.
    pub fn announce(&mut self, phase: Phase) {
        self.target.announce(phase);
    }

    /// Says what was decided for a workload.
    pub fn settle(&mut self, cell: &Cell) {
        self.target.settle(cell);
    }

    /// Waits for a clock to recover.
    pub fn rest(&mut self, pause: Nanos) -> Nanos {
        self.during(Part::Idle, |t| t.rest(pause)).1
    }

    /// Measures the ceilings.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn canary(&mut self, working_set: Bytes) -> Result<Canary, CellFailure> {
        self.during(Part::Time, |t| t.canary(working_set)).0
    }

    /// The account so far.
    pub fn report(&mut self) -> CostReport {
        self.charge(Part::Search);
        CostReport { wall: self.since - self.began, ..self.report }
    }
}
