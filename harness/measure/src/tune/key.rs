//! The key of a trial: everything that could change its answer (MEASURING.md §10).

use harness_spec::{Cell, DeviceKey};
use sha2::{Digest, Sha256};

use crate::cell::Settings;

/// Hashes what decides a trial. `built` is the key of the machine code and of the contract it is checked against; `None`
/// where the cell could not be built, so that its failure is remembered under the cell alone.
///
/// `look` is the number of samples of a cheap look: such a trial is not the full measurement.
pub fn trial_key(
    built: Option<&str>,
    cell: &Cell,
    device: &DeviceKey,
    settings: &Settings,
    look: Option<u32>,
) -> String {
    let mut hash = Sha256::new();
    let mut field = |name: &str, text: &str| {
        // Length first, so that no two lists of fields read the same.
        hash.update(format!("{name}:{}:", text.len()));
        hash.update(text);
    };
    field("built", built.unwrap_or("not built"));
    field("variant", &cell.variant.to_string());
    field("workload", &cell.workload.to_string());
    field("policy", &cell.policy.to_string());
    field("backend", &device.backend);
    field("device", &device.name);
    field("arch", &device.arch);
    for (name, value) in &device.conditions {
        field(name, value);
    }
    field("settings", &settings.fingerprint());
    if let Some(look) = look {
        field("look", &look.to_string());
    }
    hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_spec::units::Nanos;
    use harness_spec::{CacheState, LaunchMode, Policy};

    #[test]
    fn each_changed_field_is_another_key() {
        let cell = Cell {
            variant: "op/a[R=1]@cuda".parse().unwrap(),
            workload: "op N=64".parse().unwrap(),
            policy: Policy::COLD_GRAPH,
        };
        let device = DeviceKey {
            backend: "cuda".into(),
            name: "G".into(),
            arch: "sm_90".into(),
            conditions: [("driver", "1"), ("power limit", "700 W"), ("ecc", "on")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        };
        let settings = Settings::default();
        let mut keys = vec![trial_key(Some("k"), &cell, &device, &settings, None)];
        keys.push(trial_key(Some("l"), &cell, &device, &settings, None));
        keys.push(trial_key(None, &cell, &device, &settings, None));
        keys.push(trial_key(Some("k"), &cell, &device, &settings, Some(3)));
        let with = |change: &dyn Fn(&mut Cell)| {
            let mut c = cell.clone();
            change(&mut c);
            trial_key(Some("k"), &c, &device, &settings, None)
        };
        keys.push(with(&|c| c.variant.tunables.insert("R".into(), 2).map(|_| ()).unwrap()));
        keys.push(with(&|c| c.variant.kernel = "b".into()));
        keys.push(with(&|c| c.workload.shape = harness_spec::Shape::of([("N", 65)])));
        keys.push(with(&|c| c.policy.cache = CacheState::Hot));
        keys.push(with(&|c| c.policy.launch = LaunchMode::GraphPdl));
        let on = |change: &dyn Fn(&mut DeviceKey)| {
            let mut d = device.clone();
            change(&mut d);
            trial_key(Some("k"), &cell, &d, &settings, None)
        };
        keys.push(on(&|d| d.backend = "cpu".into()));
        keys.push(on(&|d| d.name = "H".into()));
        keys.push(on(&|d| d.arch = "sm_89".into()));
        for name in ["driver", "power limit", "ecc"] {
            keys.push(on(&|d| d.conditions.insert(name.into(), "other".into()).map(|_| ()).unwrap()));
        }
        keys.push(on(&|d| d.conditions.insert("mig".into(), "on".into()).map_or((), |_| ())));
        let longer = Settings { device_budget: Nanos(1), ..settings.clone() };
        keys.push(trial_key(Some("k"), &cell, &device, &longer, None));
        let n = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), n, "two different cells share a key");
    }
}
