//! `bench sweep`: every chosen variant is checked and timed over a suite.

use super::{kernel_report, kernels, timing};
use crate::args::{Command, SweepArgs, TimingArgs};
use crate::exit::{Exit, Outcome};
use crate::target::open::{self, Checks};
use harness_spec::record::KernelRunKind;

/// `bench sweep`.
pub fn run(args: SweepArgs, json: bool, command: Vec<String>) -> Outcome {
    let (args, command) = match &args.timing.resume {
        None => (args, command),
        Some(folder) => {
            let (first, command) = timing::first_command(folder, "sweep")?;
            let Command::Sweep(first) = first else { return Err(timing::other_verb(folder, "sweep")) };
            let timing = TimingArgs { resume: args.timing.resume.clone(), ..args.timing.over(first.timing) };
            (SweepArgs { timing, ..first }, command)
        }
    };
    let place = open::places(args.device.device.as_deref())?[0];
    let suite = timing::suite(&args.what, Some("quick"), place.is_gpu() && args.device.simulate.is_none())?;
    let bench = kernels::open(place, &args.device, Checks::Quick, None)?.bench();
    let job = timing::Job {
        kind: KernelRunKind::Sweep,
        suite: &suite,
        timing: &args.timing,
        variants: args.variants,
        in_engine: false,
        adjust: &|_| Ok(()),
        command,
        json,
    };
    let Some(timed) = timing::time(&job, bench)? else { return Ok(Exit::Done) };
    let printed = kernel_report::print(&timed.record, json);
    let exit = timing::conclude(&timed, None)?;
    printed.map(|()| exit)
}
