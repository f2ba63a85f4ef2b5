//! Kernels of a vendor's library on the scripted device: timed and accounted for, and no competitors.

mod common;

use common::{floor_cell, go, plain, plan, script, sweep};
use harness_measure::fake::Fake;
use harness_measure::tune::{KernelOutcome, WorkloadPlan};
use harness_spec::record::{CellResult, CellRole, KernelRunKind, Outcome};

const SLOW: &str = "[[rules]]\nvariant = \"gemv_q4_0/*\"\nefficiency = 0.2\n";

fn with_library() -> WorkloadPlan {
    let vendor = "gemv_q4_0/vendor@cuda".parse().unwrap();
    WorkloadPlan { library: vec![vendor], floor: vec![floor_cell(9_470_000)], ..plain(&["a", "b"]) }
}

fn library(out: &KernelOutcome) -> &CellResult {
    let mut cells = out.cells.iter().filter(|c| c.role == CellRole::Library);
    let cell = cells.next().expect("the library has a cell");
    assert!(cells.next().is_none() && cell.cell.variant.kernel == "vendor");
    cell
}

#[test]
fn a_library_that_is_faster_than_all_wins_nothing_and_eliminates_nobody() {
    let rules = format!("{SLOW}[[rules]]\nvariant = \"*/vendor@cuda\"\nefficiency = 0.9");
    let (out, journal) = go(&mut Fake::new(script(&rules)), &sweep(with_library()));
    let result = &out.results[0];
    assert_ne!(result.winner.as_ref().unwrap().kernel, "vendor");
    assert_eq!(result.ranking.len(), 2, "both candidates have full times: {:?}", result.ranking);
    let vendor = library(&out);
    assert!(vendor.outcome.is_measured() && vendor.check.is_some(), "{:?}", vendor.outcome);
    assert!(vendor.time_ns.as_ref().unwrap().median < result.ranking[0].median_ns);
    let floor = result.floor.as_ref().unwrap();
    assert_eq!(floor.variant.op, "stream_read");
    let share = floor.median_ns / vendor.time_ns.as_ref().unwrap().median;
    assert!((vendor.of_floor.value.unwrap() - share).abs() < 1e-12);
    let account = &out.accounts[0];
    assert!(account.balances() && (account.enumerated, account.timed) == (3, 3), "{account:?}");
    let trial = journal.trials().iter().find(|t| t.cell.variant.kernel == "vendor").unwrap();
    assert!(!trial.samples.is_empty());
}

#[test]
fn a_library_that_is_absent_is_skipped_with_the_reason_and_the_sweep_goes_on() {
    let rules = format!(
        "{SLOW}[[rules]]\nvariant = \"*/vendor@cuda\"\nfail = {{ stage = \"constraint\", message = \"no vendor library\" }}"
    );
    let (out, _) = go(&mut Fake::new(script(&rules)), &sweep(with_library()));
    assert_eq!(library(&out).outcome, Outcome::Skipped { reason: "no vendor library".into() });
    assert!(out.results[0].winner.is_some() && out.incomplete.is_none());
    let account = &out.accounts[0];
    assert!(account.balances() && (account.pruned, account.timed) == (1, 2), "{account:?}");
}

#[test]
fn a_verify_checks_the_library_and_no_floor() {
    let verify = plan(KernelRunKind::Verify, vec![with_library()]);
    let (out, _) = go(&mut Fake::new(script("")), &verify);
    assert_eq!(library(&out).outcome, Outcome::Verified);
    assert!(out.cells.iter().all(|c| c.role != CellRole::Floor && c.outcome == Outcome::Verified));
}
