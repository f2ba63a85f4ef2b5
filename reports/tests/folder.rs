//! The folder of a run: what is written, what is refused, and that a rebuilt report equals the first one.

mod fabricated;

use std::fs;
use std::path::Path;

use fabricated::Script;
use harness_spec::record::{Provenance, RunRecord, Sample};
use reports::SimulatedRecords::AcceptInTests;
use reports::{ReportError, load_run, rebuild, rebuild_with, write_run, write_run_with};

/// `samples.jsonl` as the harness leaves it.
fn write_samples(dir: &Path, samples: &[Sample]) {
    let lines: String = samples.iter().map(|s| serde_json::to_string(s).unwrap() + "\n").collect();
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("samples.jsonl"), lines).unwrap();
}

fn written(dir: &Path) -> (RunRecord, Vec<Sample>) {
    let (record, samples) = fabricated::compare(&Script::default());
    write_samples(dir, &samples);
    write_run_with(dir, &record, &samples, AcceptInTests).unwrap();
    (record, samples)
}

/// Every file below `dir` with its bytes, temporary ones included.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                files.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_run_leaves_its_record_its_page_and_its_charts_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("results/new");
    let (record, samples) = written(&folder);
    let names: Vec<String> = contents(&folder).into_iter().map(|(name, _)| name).collect();
    let charts = ["decode", "itl-ecdf", "ratios", "roofline", "timeline", "ttft"].map(|c| format!("charts/{c}.svg"));
    let rest = ["report.html", "run.json", "samples.jsonl"].map(str::to_owned);
    assert_eq!(names, [charts.to_vec(), rest.to_vec()].concat());
    let read = load_run(&folder).unwrap();
    assert_eq!((read.record, read.samples, read.warnings), (record, samples, Vec::new()));
}

#[test]
fn a_rebuilt_report_is_the_first_one_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let first = contents(dir.path());
    fs::remove_file(dir.path().join("report.html")).unwrap();
    fs::remove_dir_all(dir.path().join("charts")).unwrap();
    let rebuilt = rebuild_with(dir.path(), AcceptInTests).unwrap();
    assert_eq!(rebuilt.run.warnings, Vec::<String>::new());
    assert_eq!(rebuilt.paths.charts.len(), 6);
    assert!(contents(dir.path()) == first);
}

#[test]
fn a_cut_last_line_is_left_out_and_the_page_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (_, samples) = written(dir.path());
    let path = dir.path().join("samples.jsonl");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    let rebuilt = rebuild_with(dir.path(), AcceptInTests).unwrap();
    assert_eq!(rebuilt.run.samples, samples[..samples.len() - 1]);
    assert_eq!(rebuilt.run.warnings.len(), 1);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("the last line of samples.jsonl (line 80) is cut short"));
}

#[test]
fn a_damaged_line_elsewhere_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let path = dir.path().join("samples.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let damaged: Vec<&str> = text.lines().enumerate().map(|(i, l)| if i == 2 { "{\"seq\":" } else { l }).collect();
    fs::write(&path, damaged.join("\n") + "\n").unwrap();
    let error = rebuild_with(dir.path(), AcceptInTests).unwrap_err();
    assert!(matches!(error, ReportError::BadSample { line: 3, .. }), "{error}");
}

#[test]
fn a_simulated_or_imported_record_is_refused_outside_tests_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let (mut record, samples) = fabricated::compare(&Script::default());
    let error = write_run(&folder, &record, &samples).unwrap_err();
    assert!(error.to_string().starts_with("run fabricated-0001 has simulated numbers"), "{error}");
    assert!(!folder.exists());

    record.provenance = Provenance::Imported;
    let error = write_run_with(&folder, &record, &samples, AcceptInTests).unwrap_err();
    assert!(matches!(error, ReportError::NotMeasured { provenance: "imported", .. }), "{error}");

    written(&folder);
    assert!(matches!(rebuild(&folder).unwrap_err(), ReportError::NotMeasured { .. }));
}

#[test]
fn a_record_of_another_format_version_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let path = dir.path().join("run.json");
    // A later version may have other fields altogether.
    fs::write(&path, "{\"schema\": 99, \"kind\": \"galaxy\"}").unwrap();
    let error = rebuild_with(dir.path(), AcceptInTests).unwrap_err();
    assert!(matches!(error, ReportError::UnknownVersion { found: 99, supported: 1, .. }), "{error}");
    fs::write(&path, "{\"hello\": 1}").unwrap();
    assert!(matches!(rebuild(dir.path()).unwrap_err(), ReportError::NoVersion { .. }));
    fs::write(&path, "{\"schema\": 1").unwrap();
    assert!(matches!(rebuild(dir.path()).unwrap_err(), ReportError::BadRecord { .. }));
}

#[test]
fn a_missing_file_is_named_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let error = rebuild(dir.path()).unwrap_err().to_string();
    assert!(error.contains("run.json does not exist") && error.contains("hint: give the folder"), "{error}");
    written(dir.path());
    fs::remove_file(dir.path().join("samples.jsonl")).unwrap();
    let error = rebuild_with(dir.path(), AcceptInTests).unwrap_err().to_string();
    assert!(error.contains("samples.jsonl does not exist"), "{error}");
}

#[test]
fn a_file_where_the_folder_should_be_is_an_error_with_the_path_and_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("taken");
    fs::write(&taken, "a file").unwrap();
    let (record, samples) = fabricated::compare(&Script::default());
    for folder in [taken.clone(), taken.join("below")] {
        let error = write_run_with(&folder, &record, &samples, AcceptInTests).unwrap_err().to_string();
        assert!(error.contains("taken") && error.contains("--out DIR"), "{error}");
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "a file");
}

#[test]
fn a_chart_that_has_no_data_any_more_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut record, samples) = written(dir.path());
    assert!(dir.path().join("charts/roofline.svg").exists());
    record.ceiling = None;
    let paths = write_run_with(dir.path(), &record, &samples, AcceptInTests).unwrap();
    assert!(!dir.path().join("charts/roofline.svg").exists());
    assert_eq!(paths.charts.len(), 5);
}
