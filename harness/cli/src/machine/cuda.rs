//! What of CUDA can be used on this machine, for `bench doctor`.

use harness_spec::record::NoiseSource;
use kernels::cuda::compile::Cache;
use kernels::cuda::driver::Device;
use kernels::cuda::library::{cublaslt, driver_version, load_driver, nvrtc};

/// The driver, each device, the run-time compiler, the library that multiplies prompts, and the cache of compiled kernels: what was found where, and the fix
/// for what is missing.
pub fn checks() -> Vec<NoiseSource> {
    let mut out = vec![driver()];
    match Device::count() {
        Ok(count) => out.extend((0..count).map(device)),
        // Without a driver that line has said everything.
        Err(_) if load_driver().is_err() => {}
        Err(e) => out.push(failed("cuda device", &e.to_string())),
    }
    out.push(compiler());
    out.push(library());
    out.push(cache());
    out
}

fn check(name: &str, state: &str, found: String, fix: &str) -> NoiseSource {
    NoiseSource { name: name.to_owned(), state: state.to_owned(), found, fix: fix.to_owned() }
}

/// An error with its hint as the fix. Nothing of CUDA is needed on a CPU, so that its absence is no warning.
fn failed(name: &str, error: &str) -> NoiseSource {
    let (found, hint) = error.split_once("\nhint: ").unwrap_or((error, ""));
    check(name, "unknown", found.to_owned(), &if hint.is_empty() { String::new() } else { format!("for CUDA: {hint}") })
}

fn driver() -> NoiseSource {
    match load_driver().and_then(|path| Ok((path, driver_version()?))) {
        Ok((path, (major, minor))) => {
            check("cuda driver", "ok", format!("runs CUDA {major}.{minor} ({})", path.display()), "")
        }
        Err(e) => failed("cuda driver", &e.to_string()),
    }
}

fn device(ordinal: u32) -> NoiseSource {
    let name = format!("cuda:{ordinal}");
    match Device::open(ordinal) {
        Ok(device) => {
            let f = device.facts();
            let key = device.key("");
            let condition = |name: &str| key.conditions.get(name).cloned().unwrap_or_default();
            let found = format!(
                "{}, {}, {} SMs, L2 {} MiB, {} MiB, driver {}, power limit {} W, ECC {}, MIG {}",
                f.name,
                device.arch(),
                f.sms,
                f.l2 >> 20,
                f.memory >> 20,
                condition("driver"),
                condition("power_limit_w"),
                condition("ecc"),
                condition("mig"),
            );
            check(&name, "ok", found, "")
        }
        Err(e) => failed(&name, &e.to_string()),
    }
}

fn compiler() -> NoiseSource {
    match nvrtc() {
        Ok(n) => check("nvrtc", "ok", format!("{} by {} ({})", n.version_text(), n.origin, n.path.display()), ""),
        Err(e) => failed("nvrtc", &e.to_string()),
    }
}

/// The library of matrix products. Without it our own kernels multiply prompts, so that its absence is no fault.
fn library() -> NoiseSource {
    let name = "cublaslt";
    match cublaslt() {
        Ok(l) => {
            let (version, origin, path) = (l.version_text(), l.origin, l.path.display());
            check(name, "ok", format!("{version} by {origin} ({path}); multiplies prompts"), "")
        }
        Err(e) => {
            let missing = failed(name, &e.to_string());
            NoiseSource { found: format!("{}; prompts are multiplied by our own kernels", missing.found), ..missing }
        }
    }
}

fn cache() -> NoiseSource {
    let name = "cubin cache";
    let Some(cache) = Cache::of_this_user() else {
        return check(name, "warn", "no home folder".to_owned(), "set EDGELLM_CACHE to a folder that can be written");
    };
    let folder = cache.folder().display().to_string();
    match std::fs::read_dir(cache.folder()) {
        Ok(entries) => check(name, "ok", format!("{} kernel(s) in {folder}", entries.count()), ""),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => check(name, "ok", format!("{folder}, still empty"), ""),
        Err(e) => check(name, "warn", format!("{folder}: {e}"), "set EDGELLM_CACHE to a folder that can be written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_compiler_and_cache_are_always_reported_and_what_is_missing_has_a_fix() {
        let all = checks();
        for name in ["cuda driver", "nvrtc", "cublaslt", "cubin cache"] {
            let found = all.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no line for {name}"));
            assert!(found.state == "ok" || !found.fix.is_empty(), "{found:?}");
        }
    }
}
