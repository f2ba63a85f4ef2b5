//! The libraries of a scripted GPU: a driver and a compiler that compute next to nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a library of a source of this crate. `None` without a C compiler, as where a program of tests was carried to.
pub fn build(source: &Path, library: &Path, flags: &[&str]) -> Option<()> {
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1"]).args(flags).arg("-o").arg(library).arg(source);
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

/// Builds the driver in a folder and the compiler, as `nvrtc`, from the sources that `find` finds. `None` as of [`build`].
pub fn gpu(find: impl Fn(&str) -> PathBuf, folder: &Path, nvrtc: &Path) -> Option<()> {
    build(&find("tests/cli/driver.c"), &folder.join("libcuda.so.1"), &[])?;
    // The name that is asked for first. Where it is not here, that of a machine with a driver is found.
    std::os::unix::fs::symlink("libcuda.so.1", folder.join("libcuda.so")).unwrap();
    build(&find("tests/scripted/nvrtc.c"), nvrtc, &[])
}
