//! The worker's side: a target in this process behind lines of JSON.

use std::io::{BufRead, Write};
use std::sync::mpsc;

use anyhow::Context;
use harness_spec::{CellFailure, Stage, Target};

use super::in_engine::WithEngine;
use super::open::Opened;
use super::protocol::{Answer, Hello, Reply, Request, VERSION};

/// Serves `opened` on the standard streams until the parent closes them.
///
/// # Errors
/// A parent that says something else, or a broken pipe.
pub fn serve(opened: Result<Opened, String>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let hello = match &opened {
        Ok(o) => Hello {
            protocol: VERSION,
            device: Ok(o.target.device()),
            simulated: o.simulated,
            facts: o.facts.clone(),
            limits: Some(o.limits),
        },
        Err(why) => Hello {
            protocol: VERSION,
            device: Err(why.clone()),
            simulated: false,
            facts: Default::default(),
            limits: None,
        },
    };
    say(&mut out, &hello)?;
    let Ok(Opened { target, simulated, place, .. }) = opened else { return Ok(()) };
    let mut target = WithEngine::new(target, place);
    // Not before the greeting: a parent that says nothing is told what device this is all the same.
    for line in listen() {
        let request: Request = serde_json::from_str(&line).context("reading a request")?;
        let answer = answer(&mut target, request);
        if simulated {
            act_out(&answer);
        }
        let leaving = answer.damages();
        say(&mut out, &Reply { answer, now: target.now(), transfer: target.transfer_time(), leaving })?;
        if leaving {
            // A context that has faulted answers every later call with the same error, so nothing is saved by staying.
            return Ok(());
        }
    }
    Ok(())
}

/// Lines of the parent. They are read by a thread of their own: when the parent is gone, so is the worker, even in the
/// middle of a kernel that never ends.
fn listen() -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if send.send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receive
}

fn say(out: &mut impl Write, message: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message).context("writing a message")?;
    line.push(b'\n');
    out.write_all(&line).and_then(|()| out.flush()).context("answering the parent")
}

fn answer(target: &mut WithEngine, request: Request) -> Answer {
    match request {
        Request::Prepare { cells } => Answer::Prepared(target.prepare(&cells)),
        Request::Prefetch { cells } => {
            target.prefetch(&cells);
            Answer::Done
        }
        Request::Announce { phase } => {
            target.announce(phase);
            Answer::Done
        }
        Request::Check { cell, seed } => Answer::Checked(target.check(&cell, seed)),
        Request::Sample { cell, count } => Answer::Sampled(target.sample(&cell, count)),
        Request::Canary { working_set } => Answer::Canary(target.canary(working_set)),
        Request::Rest { pause } => {
            target.rest(pause);
            Answer::Done
        }
        Request::Settle { cell } => {
            target.settle(&cell);
            Answer::Done
        }
        Request::LoadEngine(request) => Answer::Engine(target.load(&request)),
    }
}

/// A scripted fault or hang happens for real: the process dies or never answers, as it would under a broken kernel, so
/// that what the parent makes of it is tested and not assumed.
fn act_out(answer: &Answer) {
    let failure: Option<&CellFailure> = match answer {
        Answer::Checked(Err(f)) | Answer::Sampled(Err(f)) | Answer::Canary(Err(f)) => Some(f),
        Answer::Prepared(all) => all.iter().find_map(|r| r.as_ref().err().filter(|f| f.stage == Stage::Fault)),
        Answer::Checked(Ok(_)) | Answer::Sampled(Ok(_)) | Answer::Canary(Ok(_)) | Answer::Engine(_) | Answer::Done => {
            None
        }
    };
    match failure.map(|f| (f.stage, &f.message)) {
        Some((Stage::Fault, message)) => {
            eprintln!("{message}");
            std::process::abort();
        }
        Some((Stage::Hang, _)) => loop {
            std::thread::park();
        },
        _ => {}
    }
}
