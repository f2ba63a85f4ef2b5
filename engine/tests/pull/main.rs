//! Pulling models from every source, against servers that behave, break off, lie or are not there.

mod fake_server;
#[path = "../real_model/mod.rs"]
mod real_model;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::models::{Entry, ModelName, PullError, PullSettings, Silent, Source, Store, pull_blocking, sha256_file};
use fake_server::{Answer, FakeServer};
use tempfile::TempDir;

struct World {
    dir: TempDir,
    store: Store,
    settings: PullSettings,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(dir.path().join("models"));
    // Nothing here may reach out to the network: what a test does not replace answers nowhere.
    let nowhere = "http://127.0.0.1:1".to_owned();
    let settings = PullSettings {
        ollama_registry: nowhere.clone(),
        hugging_face: nowhere.clone(),
        package_index: Some(nowhere),
        python: PathBuf::from("/nonexistent/python3"),
        attempts: 3,
        first_pause: Duration::ZERO,
        silence: Duration::from_secs(20),
        ..PullSettings::default()
    };
    World { dir, store, settings }
}

impl World {
    fn pull(&self, source: &str, name: &str) -> Result<Entry, PullError> {
        let name: ModelName = name.parse().unwrap();
        pull_blocking(&self.store, &Source::parse(source).unwrap(), &name, &self.settings, &mut Silent)
    }

    fn downloads(&self) -> Vec<PathBuf> {
        fs::read_dir(self.store.downloads_dir()).unwrap().map(|item| item.unwrap().path()).collect()
    }

    fn sha256_of(&self, bytes: &[u8]) -> String {
        let path = self.dir.path().join("to-hash");
        fs::write(&path, bytes).unwrap();
        sha256_file(&path, &mut Silent).unwrap().to_string()
    }
}

/// Something that begins as a GGUF file does and is long enough to be cut.
fn model_bytes() -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend((0..200_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()));
    bytes
}

fn content(entry: &Entry) -> Vec<u8> {
    fs::read(&entry.path).unwrap()
}

#[test]
fn a_local_file_is_pulled_under_the_name_given() {
    let world = world();
    let file = world.dir.path().join("some.gguf");
    fs::write(&file, model_bytes()).unwrap();
    let entry = world.pull(file.to_str().unwrap(), "mine:1").unwrap();
    assert_eq!(content(&entry), model_bytes());
    assert!(!entry.is_reference);
    fs::remove_file(&file).unwrap();
    let found = world.store.find(&"mine:1".parse().unwrap()).unwrap();
    assert_eq!(content(&found), model_bytes(), "the model must survive its original");
}

#[test]
fn a_local_file_that_is_missing_or_no_gguf_is_refused() {
    let world = world();
    assert!(matches!(world.pull("./absent.gguf", "x"), Err(PullError::NoFile { .. })));
    let file = world.dir.path().join("page.gguf");
    fs::write(&file, "<html>").unwrap();
    assert!(matches!(world.pull(file.to_str().unwrap(), "x"), Err(PullError::NotGguf { .. })));
    fs::write(&file, "GG").unwrap();
    assert!(matches!(world.pull(file.to_str().unwrap(), "x"), Err(PullError::NotGguf { .. })));
    assert!(world.store.list().unwrap().is_empty());
}

#[test]
fn a_download_goes_on_where_the_connection_was_cut() {
    let body = model_bytes();
    let tries = AtomicUsize::new(0);
    let server = FakeServer::start({
        let body = body.clone();
        move |asked| {
            let answer = Answer::ranged(asked, &body).with("etag", "\"v1\"");
            if tries.fetch_add(1, Ordering::SeqCst) == 0 { answer.cut_after(300_000) } else { answer }
        }
    });
    let world = world();
    let entry = world.pull(&format!("{}/m.gguf", server.url), "m").unwrap();
    assert_eq!(content(&entry), body);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("range"), None);
    assert!(asked[1].range_start().is_some_and(|start| start > 0 && start <= 300_000), "{:?}", asked[1]);
    assert_eq!(asked[1].header("if-range"), Some("\"v1\""));
    assert_eq!(world.downloads(), Vec::<PathBuf>::new(), "nothing unfinished is left");
}

#[test]
fn a_download_that_never_ends_is_kept_and_taken_up_by_the_next_command() {
    let body = model_bytes();
    let is_healthy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let server = FakeServer::start({
        let (body, is_healthy) = (body.clone(), is_healthy.clone());
        move |asked| match (is_healthy.load(Ordering::SeqCst), asked.range_start()) {
            (true, _) => Answer::ranged(asked, &body).with("etag", "\"v1\""),
            (false, None) => Answer::ok(body.clone()).with("etag", "\"v1\"").cut_after(100_000),
            // Broken for good: not one byte more.
            (false, Some(_)) => Answer::ranged(asked, &body).with("etag", "\"v1\"").cut_after(0),
        }
    });
    let world = world();
    let url = format!("{}/m.gguf", server.url);
    let error = world.pull(&url, "m").unwrap_err();
    let PullError::Interrupted { got, .. } = &error else { panic!("{error}") };
    assert!(*got > 0 && *got <= 100_000);
    assert!(error.to_string().contains("run the same command again"), "{error}");
    assert!(world.store.list().unwrap().is_empty());
    is_healthy.store(true, Ordering::SeqCst);
    assert_eq!(content(&world.pull(&url, "m").unwrap()), body);
    assert!(server.asked().last().unwrap().range_start().is_some());
}

#[test]
fn a_file_that_changed_on_the_server_is_not_joined_to_the_old_beginning() {
    let (old, new) = (model_bytes(), [model_bytes(), b"new".to_vec()].concat());
    let tries = AtomicUsize::new(0);
    let server = FakeServer::start({
        let (old, new) = (old, new.clone());
        move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::ok(old.clone()).with("etag", "\"old\"").cut_after(250_000),
            // If-Range does not match, so the whole new file comes with status 200.
            _ if asked.header("if-range") == Some("\"old\"") => Answer::ok(new.clone()).with("etag", "\"new\""),
            _ => Answer::status(500),
        }
    });
    let world = world();
    let entry = world.pull(&format!("{}/m.gguf", server.url), "m").unwrap();
    assert_eq!(content(&entry), new);
}

#[test]
fn without_a_digest_or_an_etag_a_broken_download_starts_anew() {
    let body = model_bytes();
    let tries = AtomicUsize::new(0);
    let server = FakeServer::start({
        let body = body.clone();
        move |asked| {
            let answer = Answer::ranged(asked, &body);
            if tries.fetch_add(1, Ordering::SeqCst) == 0 { answer.cut_after(100_000) } else { answer }
        }
    });
    let world = world();
    assert_eq!(content(&world.pull(&format!("{}/m.gguf", server.url), "m").unwrap()), body);
    assert!(server.asked().iter().all(|asked| asked.range_start().is_none()));
}

#[test]
fn an_error_page_is_not_taken_for_a_model() {
    let world = world();
    let missing = FakeServer::start(|_| Answer::status(404));
    let error = world.pull(&format!("{}/m.gguf", missing.url), "m").unwrap_err();
    assert!(matches!(error, PullError::Status { status: 404, .. }), "{error}");
    let page = FakeServer::start(|_| Answer::ok("<html>log in first</html>"));
    let error = world.pull(&format!("{}/m.gguf", page.url), "m").unwrap_err();
    assert!(matches!(error, PullError::NotGguf { .. }), "{error}");
    assert!(world.downloads().is_empty() && world.store.list().unwrap().is_empty());
}

#[test]
fn a_server_that_is_not_there_gives_one_clear_error() {
    let world = world();
    for (source, name) in [("http://127.0.0.1:1/m.gguf", "m"), ("hf.co/o/r", "m"), ("llama3.2", "m")] {
        let error = world.pull(source, name).unwrap_err();
        assert!(matches!(error, PullError::Unreachable { .. }), "{source}: {error}");
        assert!(error.to_string().contains("hint: check the network"), "{error}");
    }
}

#[test]
fn an_unwritable_store_is_an_error_that_names_the_folder() {
    let mut world = world();
    let blocked = world.dir.path().join("a-file");
    fs::write(&blocked, "").unwrap();
    world.store = Store::at(blocked.join("models"));
    let error = world.pull("http://127.0.0.1:1/m.gguf", "m").unwrap_err().to_string();
    assert!(error.contains("a-file") && error.contains("EDGELLM_HOME"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let server = FakeServer::start(|_| Answer::ok(model_bytes()));
    let world = world();
    world.store.create().unwrap();
    // /dev/full accepts no byte. The download is pointed there through the name of its unfinished file.
    let url = format!("{}/m.gguf", server.url);
    let name: String = format!("url-{url}").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    std::os::unix::fs::symlink("/dev/full", world.store.downloads_dir().join(format!("{name}.part"))).unwrap();
    let error = world.pull(&url, "m").unwrap_err();
    assert!(matches!(error, PullError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
}

fn manifest(sha256: &str, size: usize) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
            "config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:{0}","size":2}},
            "layers":[{{"mediaType":"application/vnd.ollama.image.template","digest":"sha256:{0}","size":2}},
                      {{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{sha256}","size":{size}}}]}}"#,
        "0".repeat(64)
    )
}

#[test]
fn a_model_of_an_ollama_registry_is_resumed_and_checked() {
    let mut world = world();
    let body = model_bytes();
    let sha256 = world.sha256_of(&body);
    let tries = AtomicUsize::new(0);
    let server = FakeServer::start({
        let (body, manifest) = (body.clone(), manifest(&sha256, body.len()));
        let blob = format!("/v2/library/tiny/blobs/sha256:{sha256}");
        move |asked| match asked.path.as_str() {
            "/v2/library/tiny/manifests/1b" => Answer::ok(manifest.clone()),
            path if path == blob => {
                let answer = Answer::ranged(asked, &body);
                if tries.fetch_add(1, Ordering::SeqCst) == 0 { answer.cut_after(123_456) } else { answer }
            }
            _ => Answer::status(404),
        }
    });
    world.settings.ollama_registry = server.url.clone();
    let entry = world.pull("tiny:1b", "tiny:1b").unwrap();
    assert_eq!(content(&entry), body);
    assert_eq!(entry.sha256.unwrap().as_str(), sha256);
    assert!(
        server.asked().last().unwrap().range_start().is_some(),
        "a known digest makes resuming safe without an ETag"
    );
    let before = server.asked().len();
    world.pull("tiny:1b", "tiny:1b").unwrap();
    assert_eq!(server.asked().len(), before + 1, "a model that is there costs one look at the manifest");
    let error = world.pull("absent:1b", "absent:1b").unwrap_err();
    assert!(matches!(error, PullError::UnknownModel { .. }), "{error}");
}

#[test]
fn a_blob_with_the_wrong_digest_is_thrown_away() {
    let mut world = world();
    let body = model_bytes();
    let wrong = "1".repeat(64);
    let server = FakeServer::start({
        let (body, manifest) = (body.clone(), manifest(&wrong, body.len()));
        move |asked| match asked.path.contains("/manifests/") {
            true => Answer::ok(manifest.clone()),
            false => Answer::ranged(asked, &body),
        }
    });
    world.settings.ollama_registry = server.url.clone();
    let error = world.pull("tiny:1b", "tiny:1b").unwrap_err();
    assert!(matches!(error, PullError::Digest { .. }), "{error}");
    assert!(world.downloads().is_empty(), "what failed its check is not kept");
    assert!(world.store.list().unwrap().is_empty());
}

#[test]
fn a_registry_that_sends_garbage_gives_one_clear_error() {
    let mut world = world();
    let server = FakeServer::start(|_| Answer::ok("<html>a login page</html>"));
    world.settings.ollama_registry = server.url.clone();
    world.settings.hugging_face = server.url.clone();
    assert!(matches!(world.pull("tiny:1b", "t"), Err(PullError::Answer { .. })));
    assert!(matches!(world.pull("hf.co/o/r", "t"), Err(PullError::Answer { .. })));
    let server = FakeServer::start(|_| Answer::ok(r#"{"layers":[]}"#));
    world.settings.ollama_registry = server.url.clone();
    assert!(matches!(world.pull("tiny:1b", "t"), Err(PullError::NoModelLayer { .. })));
}

fn ollama_store(dir: &Path, sha256: &str, blob: Option<&[u8]>) {
    let manifests = dir.join("manifests/registry.ollama.ai/library/tiny");
    fs::create_dir_all(&manifests).unwrap();
    fs::create_dir_all(dir.join("blobs")).unwrap();
    fs::write(manifests.join("1b"), manifest(sha256, 3)).unwrap();
    if let Some(blob) = blob {
        fs::write(dir.join(format!("blobs/sha256-{sha256}")), blob).unwrap();
    }
}

#[test]
fn a_model_of_the_ollama_on_this_machine_is_used_where_it_lies() {
    let mut world = world();
    let sha256 = world.sha256_of(&model_bytes());
    let dir = world.dir.path().join("ollama");
    ollama_store(&dir, &sha256, Some(&model_bytes()));
    world.settings.ollama_models = Some(dir.clone());
    let entry = world.pull("tiny:1b", "tiny:1b").unwrap();
    assert!(entry.is_reference);
    assert_eq!(entry.path, dir.join(format!("blobs/sha256-{sha256}")));
    world.store.remove(&"tiny:1b".parse().unwrap()).unwrap();
    assert!(entry.path.exists(), "Ollama's blob is not ours to delete");
}

#[test]
fn a_damaged_blob_of_ollama_is_refused_and_an_unfinished_one_is_fetched() {
    let mut world = world();
    let sha256 = world.sha256_of(&model_bytes());
    let dir = world.dir.path().join("ollama");
    ollama_store(&dir, &sha256, Some(b"GGUF but not the same"));
    world.settings.ollama_models = Some(dir.clone());
    assert!(matches!(world.pull("tiny:1b", "tiny:1b"), Err(PullError::Digest { .. })));
    fs::remove_file(dir.join(format!("blobs/sha256-{sha256}"))).unwrap();
    // The blob is missing, so the registry is asked, which does not answer here.
    assert!(matches!(world.pull("tiny:1b", "tiny:1b"), Err(PullError::Unreachable { .. })));
}

#[test]
fn a_hugging_face_repository_gives_the_quantisation_asked_for() {
    let mut world = world();
    world.settings.hugging_face_token = Some("a-token".to_owned());
    let body = model_bytes();
    let sha256 = world.sha256_of(&body);
    let tree = format!(
        r#"[{{"type":"file","path":"README.md","size":3}},
            {{"type":"file","path":"Tiny-Q8_0.gguf","size":9,"lfs":{{"oid":"{}","size":9}}}},
            {{"type":"file","path":"Tiny-Q4_0.gguf","size":{},"lfs":{{"oid":"{sha256}","size":9}}}},
            {{"type":"file","path":"big-F16-00001-of-00002.gguf","size":9}}]"#,
        "2".repeat(64),
        body.len()
    );
    let server = FakeServer::start(move |asked| match asked.path.as_str() {
        "/api/models/o/Tiny-GGUF/tree/main?recursive=true" => Answer::ok(tree.clone()),
        "/o/Tiny-GGUF/resolve/main/Tiny-Q4_0.gguf" => Answer::ranged(asked, &body),
        _ => Answer::status(404),
    });
    world.settings.hugging_face = server.url.clone();
    let entry = world.pull("hf.co/o/Tiny-GGUF:q4_0", "tiny:q4").unwrap();
    assert_eq!(entry.sha256.clone().unwrap().as_str(), sha256);
    assert!(server.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer a-token")));
    let error = world.pull("hf.co/o/Tiny-GGUF:Q5_K_M", "x").unwrap_err().to_string();
    assert!(error.contains("Tiny-Q8_0.gguf"), "the files that exist are named: {error}");
    assert!(matches!(world.pull("hf.co/o/Tiny-GGUF:F16", "x"), Err(PullError::SplitFile { .. })));
    assert!(matches!(world.pull("hf.co/o/absent", "x"), Err(PullError::UnknownModel { .. })));
}
