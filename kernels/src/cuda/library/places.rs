//! Folders where CUDA libraries may lie. Nothing is loaded here and no other program is started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A folder and the reason why it is looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Such as `CUDA_PATH` or `Python environment`; `bench doctor` prints it.
    pub origin: &'static str,
}

/// What the places depend on, so that tests can make their own.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `CUDA_PATH`, or `CUDA_HOME` where that is unset.
    pub cuda_path: Option<PathBuf>,
    /// `LD_LIBRARY_PATH`.
    pub loader_path: Vec<PathBuf>,
    /// Prefixes of Python environments: `VIRTUAL_ENV`, `CONDA_PREFIX`, the parents of every `python3` on the `PATH`.
    pub python_prefixes: Vec<PathBuf>,
    /// The home folder, for packages that a user installed.
    pub home: Option<PathBuf>,
    /// `/`, or a folder that stands for it.
    pub root: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Surroundings {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let paths = |name: &str| var(name).map(|v| std::env::split_paths(&v).collect::<Vec<_>>()).unwrap_or_default();
        let mut prefixes: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(var).map(PathBuf::from).collect();
        for bin in paths("PATH") {
            // The link is not resolved: the python3 of an environment is a link to that of the system, and the packages
            // are in the environment.
            if bin.join("python3").exists() && bin.file_name() == Some(OsStr::new("bin")) {
                prefixes.extend(bin.parent().map(Path::to_owned));
            }
        }
        Surroundings {
            cuda_path: var("CUDA_PATH").or_else(|| var("CUDA_HOME")).map(PathBuf::from),
            loader_path: paths("LD_LIBRARY_PATH"),
            python_prefixes: prefixes,
            home: var("HOME").map(PathBuf::from),
            root: PathBuf::from("/"),
        }
    }

    /// Folders for `libnvrtc`, in the order in which they are tried.
    pub fn nvrtc(&self) -> Vec<Place> {
        self.toolkits("cuda_nvrtc")
    }

    /// Folders for `libcublasLt`, in the same order.
    pub fn cublaslt(&self) -> Vec<Place> {
        self.toolkits("cublas")
    }

    /// Folders for a library of the toolkit. `package` is its Python package before CUDA 13.
    fn toolkits(&self, package: &'static str) -> Vec<Place> {
        let mut out = Places { package, found: Vec::new() };
        if let Some(path) = &self.cuda_path {
            out.toolkit(path, "CUDA_PATH");
        }
        self.loader_path.iter().for_each(|p| out.add(p.clone(), "LD_LIBRARY_PATH"));
        for prefix in &self.python_prefixes {
            out.python(&prefix.join("lib"));
            out.python(&prefix.join("local/lib"));
            out.add(prefix.join("lib"), "Python environment");
        }
        self.system(&mut out);
        for toolkit in children(&self.root.join("usr/local"), "cuda").into_iter().rev() {
            out.toolkit(&toolkit, "toolkit");
        }
        out.toolkit(&self.root.join("opt/cuda"), "toolkit");
        if let Some(home) = &self.home {
            out.python(&home.join(".local/lib"));
        }
        out.python(&self.root.join("usr/local/lib"));
        out.python(&self.root.join("usr/lib"));
        out.found
    }

    /// Folders for the driver's library where the loader does not know it, as in some containers.
    pub fn driver(&self) -> Vec<Place> {
        let mut out = Places { package: "", found: Vec::new() };
        self.loader_path.iter().for_each(|p| out.add(p.clone(), "LD_LIBRARY_PATH"));
        self.system(&mut out);
        out.found
    }

    fn system(&self, out: &mut Places) {
        let folders = [
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/aarch64-linux-gnu",
            "usr/lib64",
            "usr/lib",
            "usr/local/nvidia/lib64",
            "usr/local/nvidia/lib",
            "usr/lib/wsl/lib",
            "usr/lib/aarch64-linux-gnu/tegra",
            "usr/lib/aarch64-linux-gnu/nvidia",
            "run/opengl-driver/lib",
        ];
        folders.into_iter().for_each(|f| out.add(self.root.join(f), "system"));
    }
}

/// Existing folders, each once, for a library of this Python package.
struct Places {
    package: &'static str,
    found: Vec<Place>,
}

impl Places {
    fn add(&mut self, folder: PathBuf, origin: &'static str) {
        if folder.is_dir() && !self.found.iter().any(|p| p.folder == folder) {
            self.found.push(Place { folder, origin });
        }
    }

    /// The library folders of a toolkit.
    fn toolkit(&mut self, root: &Path, origin: &'static str) {
        ["lib64", "lib", "lib/x64"].into_iter().for_each(|f| self.add(root.join(f), origin));
        for target in children(&root.join("targets"), "") {
            self.add(target.join("lib"), origin);
        }
    }

    /// The packages of every Python under a `lib` folder: `nvidia/cu13/lib` of the wheels since 13, `nvidia/<package>/lib` of
    /// those before.
    fn python(&mut self, lib: &Path) {
        for python in children(lib, "python3").into_iter().rev() {
            for packages in ["site-packages", "dist-packages"] {
                let nvidia = python.join(packages).join("nvidia");
                for package in children(&nvidia, "cu").into_iter().rev() {
                    let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    if name == self.package || name.trim_start_matches("cu").parse::<u32>().is_ok() {
                        self.add(package.join("lib"), "Python environment");
                    }
                }
            }
        }
    }
}

/// Entries of a folder whose names start with `prefix`, sorted by name; empty where there is no such folder.
fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut out: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
        .map(|e| e.path())
        .collect();
    out.sort();
    out
}

/// The files of the run-time compiler in a folder, newest major first: `libnvrtc.so.13`, `libnvrtc.so.12`, `libnvrtc.so`.
pub fn nvrtc_files(folder: &Path) -> Vec<PathBuf> {
    files(folder, "libnvrtc.so")
}

/// The files of the matrix library in a folder, as [`nvrtc_files`].
pub fn cublaslt_files(folder: &Path) -> Vec<PathBuf> {
    files(folder, "libcublasLt.so")
}

fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut out: Vec<(u32, PathBuf)> =
        children(folder, name).into_iter().filter_map(|path| Some((soname_major(&path)?, path))).collect();
    // A stable sort: `libnvrtc.so.13` stays before `libnvrtc.so.13.0.88`, which is the same file.
    out.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    out.into_iter().map(|(_, path)| path).collect()
}

/// The major version in the name of a library; 0 where the name has none, `None` where it is no such name.
pub fn soname_major(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let rest = ["libnvrtc.so", "libcublasLt.so"].into_iter().find_map(|library| name.strip_prefix(library))?;
    match rest {
        "" => Some(0),
        rest => rest.strip_prefix('.')?.split('.').next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }

    #[test]
    fn a_toolkit_a_python_environment_and_the_system_are_all_looked_into_in_this_order() {
        let root = tempfile::tempdir().unwrap();
        let r = root.path();
        touch(r.join("tk/lib64/libnvrtc.so.13"));
        touch(r.join("env/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13"));
        touch(r.join("env/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"));
        touch(r.join("env/lib/python3.11/site-packages/nvidia/cublas/lib/libcublas.so.12"));
        touch(r.join("usr/local/cuda-12.8/lib64/libnvrtc.so.12"));
        touch(r.join("usr/local/cuda-13.0/lib64/libnvrtc.so.13"));
        let s = Surroundings {
            cuda_path: Some(r.join("tk")),
            python_prefixes: vec![r.join("env")],
            root: r.to_owned(),
            ..Default::default()
        };
        let found: Vec<PathBuf> = s.nvrtc().iter().flat_map(|p| nvrtc_files(&p.folder)).collect();
        let want = [
            "tk/lib64/libnvrtc.so.13",
            "env/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "env/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            "usr/local/cuda-13.0/lib64/libnvrtc.so.13",
            "usr/local/cuda-12.8/lib64/libnvrtc.so.12",
        ];
        assert_eq!(found, want.map(|p| r.join(p)));
    }

    #[test]
    fn the_matrix_library_is_looked_for_in_its_own_package_and_in_that_of_the_toolkit() {
        let root = tempfile::tempdir().unwrap();
        let r = root.path();
        let packages = r.join("env/lib/python3.11/site-packages/nvidia");
        touch(packages.join("cublas/lib/libcublasLt.so.12"));
        touch(packages.join("cublas/lib/libcublas.so.12"));
        touch(packages.join("cuda_nvrtc/lib/libcublasLt.so.12"));
        touch(packages.join("cu13/lib/libcublasLt.so.13"));
        touch(r.join("usr/local/cuda-12.8/lib64/libcublasLt.so.12"));
        let s = Surroundings { python_prefixes: vec![r.join("env")], root: r.to_owned(), ..Default::default() };
        let found: Vec<PathBuf> = s.cublaslt().iter().flat_map(|p| cublaslt_files(&p.folder)).collect();
        let want = [
            packages.join("cublas/lib/libcublasLt.so.12"),
            packages.join("cu13/lib/libcublasLt.so.13"),
            r.join("usr/local/cuda-12.8/lib64/libcublasLt.so.12"),
        ];
        assert_eq!(found, want);
        assert_eq!(soname_major(Path::new("/x/libcublasLt.so.13.1.0")), Some(13));
    }

    #[test]
    fn the_newest_major_of_a_folder_comes_first_and_other_files_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        for name in
            ["libnvrtc.so", "libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc.alt.so.13"]
        {
            touch(root.path().join(name));
        }
        let names: Vec<String> =
            nvrtc_files(root.path()).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]);
        assert_eq!(soname_major(Path::new("/x/libnvrtc.so.13.0.88")), Some(13));
        assert_eq!(soname_major(Path::new("/x/libnvrtc.alt.so.13")), None);
    }
}
