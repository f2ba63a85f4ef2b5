//! Failures of kernels and of workers are data, and the sweep goes on (R6). The worker of these tests really dies and
//! really hangs, where the script says that a kernel faults or never ends.

mod kernels;

use std::collections::BTreeMap;

use harness_spec::Stage;
use harness_spec::record::{KernelRun, Outcome};
use kernels::{Lab, SMALL, WORKLOAD, done, record, said};

/// Outcomes by variant.
fn outcomes(run: &KernelRun) -> BTreeMap<String, Outcome> {
    run.cells.iter().map(|c| (c.cell.variant.to_string(), c.outcome.clone())).collect()
}

fn winner(run: &KernelRun) -> String {
    run.results[0].winner.as_ref().unwrap().to_string()
}

const FAULT: &str = "gemv_f32/mine[ROWS=16,STAGES=2,UNROLL=1,VEC=1]@cuda";
const HANG: &str = "gemv_f32/mine[ROWS=16,STAGES=1,UNROLL=1,VEC=1]@cuda";

fn rules() -> String {
    format!(
        r#"
[[rules]]
variant = "{FAULT}"
fail = {{ stage = "fault", message = "an illegal memory access was encountered" }}
[[rules]]
variant = "{HANG}"
fail = {{ stage = "hang", message = "never ends" }}
"#
    )
}

#[test]
fn a_fault_and_a_hang_among_160_leave_the_other_158_and_the_winner_as_they_were() {
    let lab = Lab::of(SMALL);
    let sweep = |out: &str| {
        let mut c = lab.simulated("sweep");
        c.args(["--workload", SMALL, "--variants", "all", "--seed", "1", "--no-cache", "--timeout", "2", "--out", out]);
        let out = c.output().unwrap();
        done(&out);
        said(&out)
    };
    sweep("clean");
    lab.script(&rules());
    let stderr = sweep("broken");
    let (clean, broken) = (record(&lab.path("clean")), record(&lab.path("broken")));

    assert_eq!(winner(&clean), winner(&broken));
    let (before, after) = (outcomes(&clean), outcomes(&broken));
    let users = |all: &BTreeMap<String, Outcome>| all.keys().filter(|k| k.contains("/mine[")).count();
    assert_eq!((users(&before), users(&after)), (160, 160));
    for (variant, outcome) in &after {
        match (variant.as_str(), outcome) {
            (FAULT, Outcome::Failed { stage: Stage::Fault, message }) => {
                assert!(message.contains("signal 6") && message.contains("illegal memory access"), "{message}");
            }
            (HANG, Outcome::Failed { stage: Stage::Hang, message }) => {
                assert!(message.contains("within 2 s"), "{message}");
            }
            (FAULT | HANG, other) => panic!("{variant}: {other:?}"),
            (_, outcome) => assert_eq!(outcome, &before[variant], "{variant}"),
        }
    }
    let account = &broken.accounts[0];
    assert!(account.balances() && account.invalid == 2, "{account:?}");
    assert_eq!(broken.device_facts["worker restarts"], "2");
    assert!(stderr.contains(FAULT) && stderr.contains("failed at hang"), "{stderr}");
}

#[test]
fn a_thousand_configurations_with_failures_of_every_kind_add_up() {
    let lab = Lab::new();
    lab.kernel("wide", "constraints = [\"ROWS * VEC <= 64\", \"K % (VEC * 32) == 0\"]");
    let fail = |variant: &str, stage: &str, share: f64| {
        format!(
            "[[rules]]\nvariant = \"{variant}\"\nfail = {{ stage = \"{stage}\", message = \"no\", share = {share} }}\n"
        )
    };
    lab.script(&format!(
        "{}{}{}",
        fail("*/mine*", "compile", 0.2),
        fail("*/wide*", "check", 0.1),
        fail("*[*VEC=8]@cuda", "resources", 0.5)
    ));
    let out = lab
        .simulated("sweep")
        .args(["--workload", WORKLOAD, "--variants", "all", "--seed", "1", "--out", "o"])
        .output();
    done(&out.unwrap());
    let run = record(&lab.path("o"));
    let a = &run.accounts[0];
    assert!(a.balances(), "{a:?}");
    assert!(a.enumerated >= 320 && a.pruned > 0 && a.compile_failed > 10 && a.invalid > 5 && a.timed > 100, "{a:?}");
    assert!(run.cost.explained() >= 0.99, "{:?}", run.cost);
}

#[test]
fn a_worker_that_cannot_open_its_device_is_one_message_with_the_fix_and_exit_3() {
    let lab = Lab::new();
    let script = lab.path("fake.toml");
    std::fs::write(&script, "[device]\narch = \"sm_12\"\n").unwrap();
    let out = lab.simulated("tune").args(["--workload", WORKLOAD, "--out", "o"]).output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    assert!(said(&out).contains("sm_12") && said(&out).contains("hint:"), "{}", said(&out));
    std::fs::write(&script, "[device]\nspeed = 3\n").unwrap();
    let out = lab.simulated("tune").args(["--workload", WORKLOAD, "--out", "o"]).output().unwrap();
    assert_eq!(out.status.code(), Some(64));
    assert!(said(&out).contains("fake.toml") && said(&out).contains("speed"), "{}", said(&out));
    assert!(!lab.path("o").exists());
}
