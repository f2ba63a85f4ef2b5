//! The script of a fake device, as TOML:
//!
//! ```toml
//! seed = 1
//! [device]
//! name = "Fake GPU"          # backend, arch and conditions as in a device key
//! read_gb_per_s = 4000.0     # of DRAM
//! hot_gb_per_s = 9000.0      # of the last-level cache
//! gflop_per_s = 60000.0
//! overhead_ns = 1500.0       # what each launch takes beside its bytes
//! sm_clock_mhz = 1980.0
//! [device.clocks]
//! throttled = 0.3            # share of samples at `throttled_mhz`
//! [[rules]]                  # of those that fit a cell, the last that says something of a thing decides it
//! variant = "gemv_q4_0/planes*"
//! workload = "gemv_q4_0 *"
//! efficiency = 0.9           # or time_ns = 12000.0; without either, a smooth rugged function of the tunables
//! noise = { kind = "quiet", sigma = 0.005 }
//! [[rules]]
//! variant = "*[*ROWS=8*"
//! fail = { stage = "compile", message = "too many registers" }
//! [[rules]]
//! variant = "*/cache@cuda"
//! cheat = "memoises"
//! ```

use std::collections::BTreeMap;

use harness_spec::{Cell, DeviceKey, Phase, Stage};
use serde::{Deserialize, Serialize};

use super::glob::fits;
use super::noise::Noise;

/// Text that is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the script of the simulated device cannot be read:\n{0}")]
pub struct ScriptError(pub String);

/// A scripted device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Of all noise, and of the speed of variants that no rule gives one.
    pub seed: u64,
    /// The device.
    pub device: Device,
    /// What is special about some cells.
    pub rules: Vec<Rule>,
}

/// What the device is and can.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// `cuda` or `cpu`.
    pub backend: String,
    /// Its name.
    pub name: String,
    /// Compute capability or instruction set.
    pub arch: String,
    /// What else keys results to it.
    pub conditions: BTreeMap<String, String>,
    /// Read rate of memory, GB/s.
    pub read_gb_per_s: f64,
    /// Read rate of the last-level cache, GB/s.
    pub hot_gb_per_s: f64,
    /// Arithmetic, 10⁹ operations a second.
    pub gflop_per_s: f64,
    /// What a launch takes beside its bytes, ns.
    pub overhead_ns: f64,
    /// SM clock under load, MHz; 0 is a device without clock readings.
    pub sm_clock_mhz: f64,
    /// Memory clock, MHz; 0 is none.
    pub mem_clock_mhz: f64,
    /// What happens to the clock.
    pub clocks: Clocks,
    /// Noise of cells that no rule gives another.
    pub noise: Noise,
    /// Launches that are timed together.
    pub launches: u32,
    /// Every so many samples one is compared with the reference; 0 is never.
    pub verify_every: u32,
    /// Compile time of a variant, ms; each variant is compiled once.
    pub compile_ms: f64,
    /// Time of a check, ms.
    pub check_ms: f64,
    /// Time that moving the data of a cell takes, ms, inside its check.
    pub transfer_ms: f64,
    /// After this long a launch that never ends is given up, ms.
    pub timeout_ms: f64,
    /// Read rate of the canary after the run as a factor of that before.
    pub canary_after: f64,
}

impl Default for Device {
    fn default() -> Device {
        Device {
            backend: "cuda".to_owned(),
            name: "Fake GPU".to_owned(),
            arch: "sm_90".to_owned(),
            conditions: BTreeMap::new(),
            read_gb_per_s: 4000.0,
            hot_gb_per_s: 9000.0,
            gflop_per_s: 60_000.0,
            overhead_ns: 1500.0,
            sm_clock_mhz: 1980.0,
            mem_clock_mhz: 2619.0,
            clocks: Clocks::default(),
            noise: Noise::default(),
            launches: 20,
            verify_every: 5,
            compile_ms: 300.0,
            check_ms: 20.0,
            transfer_ms: 2.0,
            timeout_ms: 2000.0,
            canary_after: 1.0,
        }
    }
}

impl Device {
    /// What keys results to it.
    pub fn key(&self) -> DeviceKey {
        DeviceKey {
            backend: self.backend.clone(),
            name: self.name.clone(),
            arch: self.arch.clone(),
            conditions: self.conditions.clone(),
        }
    }
}

/// What happens to the SM clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clocks {
    /// Share of samples that run throttled.
    pub throttled: f64,
    /// At this clock, MHz; their time grows in proportion.
    pub throttled_mhz: f64,
    /// Relative standard deviation of the clock otherwise.
    pub jitter: f64,
}

impl Default for Clocks {
    fn default() -> Clocks {
        Clocks { throttled: 0.0, throttled_mhz: 1200.0, jitter: 0.0 }
    }
}

/// A scripted failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// In which words.
    pub message: String,
    /// Only from this sample of the cell on, for failures of launches.
    #[serde(default)]
    pub after_samples: u64,
    /// Only in samples of this phase, for failures of launches.
    #[serde(default)]
    pub only: Option<Phase>,
    /// Share of the cells that fit which really fail, chosen by the seed.
    #[serde(default = "all")]
    pub share: f64,
}

fn all() -> f64 {
    1.0
}

/// A way to look fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cheat {
    /// Answers from memory: impossibly fast, and right whenever it is looked at.
    Memoises,
    /// Right when checked, wrong in timed launches: found at the first one that is compared.
    SkipsWhenTimed,
}

/// What is special about the cells that fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Pattern of the variant's id; empty fits all.
    pub variant: String,
    /// Pattern of the workload; empty fits all.
    pub workload: String,
    /// Pattern of the policy; empty fits all.
    pub policy: String,
    /// Share of the read rate that its bytes are read at.
    pub efficiency: Option<f64>,
    /// Time of one launch, ns.
    pub time_ns: Option<f64>,
    /// Factor on its time.
    pub slower: Option<f64>,
    /// Time of its check, ms.
    pub check_ms: Option<f64>,
    /// Time that the data of its workload take, ms, inside the first check of such a cell there.
    pub data_ms: Option<f64>,
    /// Noise of its samples.
    pub noise: Option<Noise>,
    /// Share of its samples that run throttled.
    pub throttled: Option<f64>,
    /// How it fails.
    pub fail: Option<Failure>,
    /// How it cheats.
    pub cheat: Option<Cheat>,
    /// Something of its machine code changed: another key.
    pub source: Option<String>,
}

impl Rule {
    /// A rule for variants that fit this pattern.
    pub fn of(variant: &str) -> Rule {
        Rule { variant: variant.to_owned(), ..Rule::default() }
    }

    fn fits(&self, variant: &str, workload: &str, policy: &str) -> bool {
        [(&self.variant, variant), (&self.workload, workload), (&self.policy, policy)]
            .into_iter()
            .all(|(pattern, text)| pattern.is_empty() || fits(pattern, text))
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// With the place and the words of the TOML parser, such as an unknown key.
    pub fn parse(text: &str) -> Result<Script, ScriptError> {
        toml::from_str(text).map_err(|e| ScriptError(e.to_string()))
    }

    /// All rules that fit a cell, as one: the last that says something of a thing decides it.
    pub(super) fn rule(&self, cell: &Cell) -> Rule {
        let (variant, workload, policy) =
            (cell.variant.to_string(), cell.workload.to_string(), cell.policy.to_string());
        let mut out = Rule::default();
        for rule in self.rules.iter().filter(|r| r.fits(&variant, &workload, &policy)) {
            let r = rule.clone();
            // A time and an efficiency say the same thing.
            if r.time_ns.is_some() || r.efficiency.is_some() {
                (out.time_ns, out.efficiency) = (r.time_ns, r.efficiency);
            }
            out.slower = r.slower.or(out.slower);
            out.check_ms = r.check_ms.or(out.check_ms);
            out.data_ms = r.data_ms.or(out.data_ms);
            out.noise = r.noise.or(out.noise);
            out.throttled = r.throttled.or(out.throttled);
            out.fail = r.fail.or(out.fail);
            out.cheat = r.cheat.or(out.cheat);
            out.source = r.source.or(out.source);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_spec::Policy;

    #[test]
    fn a_script_is_read_from_toml_and_the_last_rule_decides() {
        let script = Script::parse(
            r#"
            seed = 7
            [device]
            name = "Fake GPU"
            [device.clocks]
            throttled = 0.3
            [[rules]]
            variant = "op/a*"
            efficiency = 0.9
            noise = { kind = "bimodal", sigma = 0.01, share = 0.2, slowdown = 1.3 }
            [[rules]]
            variant = "op/a*"
            time_ns = 5000.0
            [[rules]]
            workload = "op N=65*"
            fail = { stage = "hang", message = "never ends", after_samples = 3 }
            "#,
        )
        .unwrap();
        let cell = |w: &str| Cell {
            variant: "op/a[R=1]@cuda".parse().unwrap(),
            workload: w.parse().unwrap(),
            policy: Policy::COLD_GRAPH,
        };
        let rule = script.rule(&cell("op N=64"));
        assert_eq!((rule.time_ns, rule.efficiency, rule.fail.clone()), (Some(5000.0), None, None));
        assert!(matches!(rule.noise, Some(Noise::Bimodal { .. })));
        assert_eq!(script.rule(&cell("op N=65")).fail.unwrap().stage, Stage::Hang);
        assert_eq!(script.device.clocks.throttled, 0.3);
    }

    #[test]
    fn a_word_that_is_misspelt_is_named() {
        let error = Script::parse("[device]\nread_gbps = 1.0\n").unwrap_err().to_string();
        assert!(error.contains("read_gbps"), "{error}");
    }
}
