//! The libraries of a scripted GPU: a driver and a compiler that compute next to nothing; and where sources lie.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of this crate. A program of tests may run elsewhere than where it was built: in the checkout that `EDGELLM_SOURCE`
/// names, else in that of the current folder, else where it was built.
pub fn source(path: &str) -> PathBuf {
    let places = match std::env::var_os("EDGELLM_SOURCE").filter(|v| !v.is_empty()) {
        Some(checkout) => vec![PathBuf::from(checkout).join("engine")],
        None => vec![PathBuf::from("engine"), PathBuf::from("."), PathBuf::from(env!("CARGO_MANIFEST_DIR"))],
    };
    let found = places.iter().map(|folder| folder.join(path)).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("no {path} in {places:?}: run in a checkout, or name one by EDGELLM_SOURCE"))
}

/// Builds a library of a source of this crate. `None` without a C compiler, as where a program of tests was carried to.
pub fn build(path: &str, library: &Path, flags: &[&str]) -> Option<()> {
    let source = source(path);
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1"]).args(flags).arg("-o").arg(library).arg(&source);
    match cc.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("starting cc: {e}"),
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "building {} from {}: {said}", library.display(), source.display());
        }
    }
    Some(())
}

/// Builds the driver in a folder and the compiler, as `nvrtc`. `None` as of [`build`].
pub fn gpu(folder: &Path, nvrtc: &Path) -> Option<()> {
    build("tests/cli/driver.c", &folder.join("libcuda.so.1"), &[])?;
    // The name that is asked for first. Where it is not here, that of a machine with a driver is found.
    std::os::unix::fs::symlink("libcuda.so.1", folder.join("libcuda.so")).unwrap();
    build("tests/scripted/nvrtc.c", nvrtc, &[])
}
