//! Tables on disk and in use (R23 to R26).

use std::path::{Path, PathBuf};

use harness_spec::{DType, DeviceKey, Policy, Shape, VariantId};
use variants::{
    Backend, Bucket, ChosenBy, Isa, Layout, Limits, Loaded, Row, TABLE_SCHEMA, Table, TableError, TableFile, registry,
};

fn device() -> DeviceKey {
    DeviceKey {
        backend: "cpu".to_owned(),
        name: "Test CPU (1)".to_owned(),
        arch: "avx512_vnni".to_owned(),
        conditions: [("threads".to_owned(), "2".to_owned()), ("smt".to_owned(), "on".to_owned())].into(),
    }
}

fn limits() -> Limits {
    Limits::cpu(Isa::Avx512Vnni, 32 << 20)
}

fn shape(n: u64, k: u64) -> Shape {
    Shape::of([("N", n), ("K", k)])
}

/// The default variant of a CPU kernel of gemv_q4_0.
fn variant(name: &str) -> VariantId {
    let space = registry().space("gemv_q4_0").unwrap();
    let named = |k: &&variants::KernelSpec| k.name == name && k.backend == Backend::Cpu;
    space.kernels.iter().find(named).unwrap_or_else(|| panic!("no {name}")).default_variant()
}

fn row(n: u64, k: u64, name: &str) -> Row {
    let variant = variant(name);
    let (_, kernel) = registry().find(&variant).unwrap();
    Row {
        op: "gemv_q4_0".to_owned(),
        shape: shape(n, k),
        layout: kernel.layout,
        variant,
        median_ns: 1234.5,
        ci_ns: Some([1230.0, 1240.0]),
        runner_up: None,
        gap_to_runner_up: Some(0.1),
        reason: "1.10x of the next in 30 pairs".to_owned(),
        key: "k".to_owned(),
        record: None,
        policy: None,
        quarantined: None,
    }
}

fn file(rows: Vec<Row>) -> TableFile {
    TableFile {
        schema: TABLE_SCHEMA,
        policy: Policy::COLD_EAGER,
        date: "2026-01-02T03:04:05Z".to_owned(),
        tool: "0.1.0 (abc)".to_owned(),
        record: "r1".to_owned(),
        incomplete: None,
        device: device(),
        rows,
        buckets: Vec::new(),
    }
}

fn bucket(name: &str, regret_p95: f64) -> Bucket {
    let dims = [("N", [64, 512]), ("K", [64, 512]), ("M", [1, 1])];
    Bucket {
        op: "gemv_q4_0".to_owned(),
        variant: variant(name),
        regret_p95,
        shapes: 6,
        size: [64 * 64, 512 * 512],
        dims: dims.map(|(d, range)| (d.to_owned(), range)).into(),
    }
}

fn chosen(table: &Table, shape: &Shape) -> (VariantId, ChosenBy) {
    let choice = table.choose("gemv_q4_0", shape).unwrap();
    (choice.variant.clone(), choice.from)
}

fn saved(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test-cpu-1.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn a_table_is_read_back_as_it_was_and_written_the_same_byte_for_byte() {
    let rows = vec![row(256, 64, "plain"), row(64, 64, "dequant@avx2"), row(64, 64, "plain")];
    let mut table = file(rows.clone());
    table.buckets = vec![bucket("plain", 0.04)];
    table.incomplete = Some("stopped after 10 s".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let path = table.save(dir.path()).unwrap();
    assert_eq!(path.file_name().unwrap(), "test-cpu-1.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let back = TableFile::load(&path).unwrap();
    // Rows by op and shape; those of one shape keep their rank.
    assert_eq!(back.rows, [rows[1].clone(), rows[2].clone(), rows[0].clone()]);
    assert_eq!((&back.buckets, &back.device, &back.incomplete), (&table.buckets, &table.device, &table.incomplete));
    assert_eq!(back.to_text(), text);
    let mut shuffled = table.clone();
    shuffled.rows.rotate_right(1);
    assert_eq!(shuffled.to_text().len(), text.len());
    table.rows.swap(0, 1);
    assert_eq!(table.to_text(), text, "the order of shapes in memory does not show");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn the_text_of_a_table_is_for_people() {
    let text = file(vec![row(64, 128, "plain")]).to_text();
    for line in [
        "policy = \"cold+eager\"",
        "shape = \"K=128 N=64\"",
        "layout = \"gguf\"",
        "median_ns = 1234.5",
        "threads = \"2\"",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(text.starts_with("# Kernels chosen for Test CPU (1) (avx512_vnni)"), "{text}");
}

#[test]
fn a_row_decides_and_a_shape_without_one_runs_the_default() {
    let table = Table::of_file(file(vec![row(64, 64, "dequant@avx2")]), limits());
    assert_eq!(chosen(&table, &shape(64, 64)), (variant("dequant@avx2"), ChosenBy::Row));
    let one_token = Shape::of([("N", 64), ("K", 64), ("M", 1)]);
    assert_eq!(chosen(&table, &one_token), (variant("dequant@avx2"), ChosenBy::Row));
    let default = chosen(&table, &shape(64, 96));
    assert_eq!(default.1, ChosenBy::Default);
    assert_eq!(default, chosen(&Table::default_on(Backend::Cpu, limits()), &shape(64, 96)));
    assert_eq!(chosen(&table, &Shape::of([("N", 64), ("K", 64), ("M", 8)])).1, ChosenBy::Default);
    assert_eq!(table.choose("no_such_op", &shape(1, 1)), None);
}

#[test]
fn the_engine_gets_the_row_of_its_matrix_where_the_precision_allows_it() {
    let fast = row(64, 64, "unsigned@avx2");
    let table = Table::of_file(file(vec![fast.clone()]), limits());
    let isa = Isa::Avx512Vnni;
    assert_eq!(table.gemv(DType::Q4_0, 64, 64, isa, false).1, fast.variant);
    let (exact, _) = table.gemv(DType::Q4_0, 64, 64, isa, true);
    assert_eq!(exact.activations, Some(variants::Activations::F32), "a row that rounds activations is not exact");
    let (lower, _) = table.gemv(DType::Q4_0, 64, 64, Isa::Scalar, false);
    assert_eq!(lower.isa, Isa::Scalar, "the machine has no AVX2");
    assert_eq!(
        table.gemv(DType::Q4_1, 64, 64, isa, false),
        Table::default_for(isa).gemv(DType::Q4_1, 64, 64, isa, false)
    );
}

#[test]
fn a_bucket_decides_between_its_shapes_and_not_beyond() {
    let mut with = file(vec![row(128, 128, "plain")]);
    with.buckets = vec![bucket("dequant@avx2", 0.05)];
    let table = Table::of_file(with, limits());
    assert_eq!(chosen(&table, &shape(128, 128)).1, ChosenBy::Row);
    assert_eq!(chosen(&table, &shape(256, 128)), (variant("dequant@avx2"), ChosenBy::Bucket));
    assert_eq!(chosen(&table, &shape(1024, 128)).1, ChosenBy::Default);
}

#[test]
fn a_bucket_whose_regret_is_too_large_is_refused() {
    for regret in [0.051, f64::INFINITY, f64::NAN, -0.1] {
        let mut with = file(Vec::new());
        with.buckets = vec![bucket("plain", regret)];
        let error = TableFile::parse("t", &with.to_text()).unwrap_err();
        assert!(matches!(error, TableError::Bucket { .. }), "{error}");
    }
}

#[test]
fn a_row_that_cannot_run_is_passed_over() {
    // Another layout than the kernel reads now, a kernel that is gone, and one for a processor that this is not.
    let mut moved = row(64, 64, "dequant@avx2");
    moved.layout = Some(Layout::Planes);
    let mut gone = row(64, 64, "plain");
    gone.variant = "gemv_q4_0/gone@cpu".parse().unwrap();
    let rows = vec![moved, gone, row(64, 64, "unsigned@vnni"), row(64, 64, "plain")];
    let mut file = file(rows);
    let table = Table::of_file(file.clone(), Limits::cpu(Isa::Avx2, 0));
    assert_eq!(chosen(&table, &shape(64, 64)), (variant("plain"), ChosenBy::Row));
    // What the program does not have is said, with shape and variant; what this processor cannot do is no fault of the table.
    let said = file.passed_over(registry()).unwrap();
    for part in
        ["rows that are passed over", "gemv_q4_0 K=64 N=64 names gemv_q4_0/gone@cpu, which this program does not"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(said.contains("gemv_q4_0/dequant@avx2, which reads the layout gguf now"), "{said}");
    assert!(!said.contains("vnni"), "{said}");
    // A row in quarantine is passed over for a reason that was said before.
    file.rows[0].quarantined = Some("it failed".to_owned());
    file.rows[1].quarantined = Some("it failed".to_owned());
    assert_eq!(file.passed_over(registry()), None);
}

#[test]
fn a_winner_that_fails_makes_way_for_the_next_row_the_default_and_the_plain_kernel() {
    let rows = vec![row(64, 64, "dequant@avx512"), row(64, 64, "dequant@avx2")];
    let table = Table::of_file(file(rows), limits());
    let at = shape(64, 64);
    let mut seen = Vec::new();
    loop {
        let (variant, from) = chosen(&table, &at);
        assert!(!seen.contains(&(variant.clone(), from)), "{variant} came back");
        seen.push((variant.clone(), from));
        if from == ChosenBy::Baseline {
            break;
        }
        assert!(table.quarantine("gemv_q4_0", &at, &variant, "illegal address"), "said once");
        assert!(!table.quarantine("gemv_q4_0", &at, &variant, "illegal address"), "and no more");
    }
    assert_eq!(seen[0], (variant("dequant@avx512"), ChosenBy::Row));
    assert_eq!(seen[1], (variant("dequant@avx2"), ChosenBy::Row));
    assert_eq!(seen.last().unwrap().0, variant("plain"));
    assert_eq!(chosen(&table, &shape(64, 96)).1, ChosenBy::Default, "other shapes are as they were");
    // What is written down stays out of service after a restart.
    let written = table.file().unwrap();
    assert!(written.rows.iter().all(|r| r.quarantined.as_deref() == Some("illegal address")));
    let again = Table::of_file(TableFile::parse("t", &written.to_text()).unwrap(), limits());
    assert_ne!(chosen(&again, &at).1, ChosenBy::Row);
}

#[test]
fn a_table_is_found_in_the_first_folder_that_has_it() {
    let (dir, path) = saved(&file(vec![row(64, 64, "plain")]).to_text());
    let empty = tempfile::tempdir().unwrap();
    let folders = [empty.path().to_path_buf(), dir.path().to_path_buf(), PathBuf::from("/nowhere")];
    let (table, loaded) = Table::for_device(&device(), limits(), &folders);
    assert_eq!(loaded, Loaded::Found { path: Some(path) });
    assert_eq!(chosen(&table, &shape(64, 64)), (variant("plain"), ChosenBy::Row));
}

/// The table of a folder that has no usable one, and what is said about it.
fn fallback(folder: &Path) -> String {
    let (table, loaded) = Table::for_device(&device(), limits(), &[folder.to_path_buf()]);
    assert!(loaded.is_default());
    assert_eq!(table, Table::default_on(Backend::Cpu, limits()));
    loaded.to_string()
}

#[test]
fn a_device_without_a_table_runs_the_defaults_and_is_told_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        fallback(dir.path()),
        "no table for Test CPU (1): every op runs its default kernel; `bench tune` measures which are faster"
    );
}

#[test]
fn a_table_made_under_other_conditions_is_not_used() {
    let good = file(vec![row(64, 64, "plain")]);
    let mut foreign = Vec::new();
    for (field, change) in [
        ("arch", (|d: &mut DeviceKey| d.arch.push('x')) as fn(&mut DeviceKey)),
        ("backend", |d| d.backend = "cuda".to_owned()),
        ("name", |d| d.name = "Test CPU 1".to_owned()),
        ("threads", |d| drop(d.conditions.insert("threads".to_owned(), "4".to_owned()))),
        ("governor", |d| drop(d.conditions.insert("governor".to_owned(), "powersave".to_owned()))),
        ("smt", |d| drop(d.conditions.remove("smt"))),
    ] {
        let mut other = good.clone();
        change(&mut other.device);
        foreign.push((field, other));
    }
    for (field, other) in foreign {
        let (dir, _) = saved(&other.to_text());
        let said = fallback(dir.path());
        assert!(said.contains("made under other conditions") && said.contains(&format!("{field}: ")), "{said}");
    }
}

#[test]
fn what_is_no_file_is_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let said = TableFile::load(folder.path()).unwrap_err().to_string();
    assert!(said.contains("it is no file"), "{said}");
    if cfg!(target_os = "linux") {
        assert!(TableFile::load(Path::new("/dev/zero")).unwrap_err().to_string().contains("/dev/zero"));
    }
}

#[test]
fn a_damaged_table_is_a_warning_and_the_defaults_run() {
    let good = file(vec![row(64, 64, "plain")]).to_text();
    for bad in
        ["", "garbage", &good[..good.len() / 2], &good.replace("median_ns", "median"), &good.replace("1234.5", "-1.0")]
    {
        let (dir, _) = saved(bad);
        let said = fallback(dir.path());
        assert!(said.contains("is damaged") && said.contains("test-cpu-1.toml"), "{said}");
    }
    let (dir, _) = saved(&good.replace("schema = 1", "schema = 7"));
    assert!(fallback(dir.path()).contains("is of schema 7, this program reads 1"));
    let (dir, path) = saved("");
    std::fs::write(path, [0xff, 0xfe]).unwrap();
    assert!(fallback(dir.path()).contains("cannot read the table"));
}

#[test]
fn a_damaged_table_does_not_hide_a_good_one_behind_it() {
    let (bad, _) = saved("garbage");
    let (good, path) = saved(&file(vec![row(64, 64, "plain")]).to_text());
    let (_, loaded) = Table::for_device(&device(), limits(), &[bad.path().to_path_buf(), good.path().to_path_buf()]);
    assert_eq!(loaded, Loaded::Found { path: Some(path) });
}

#[test]
fn rows_that_cannot_be_right_are_refused() {
    let bad = |change: fn(&mut Row)| {
        let mut r = row(64, 64, "plain");
        change(&mut r);
        TableFile::parse("t", &file(vec![r]).to_text()).unwrap_err().to_string()
    };
    assert!(bad(|r| r.median_ns = 0.0).contains("a median that is no time"));
    assert!(bad(|r| r.median_ns = f64::NAN).contains("a median that is no time"));
    assert!(bad(|r| r.ci_ns = Some([2.0, 1.0])).contains("an interval that is none"));
    assert!(bad(|r| r.op = "gemv_q4_1".to_owned()).contains("of another op"));
    let twice = file(vec![row(64, 64, "plain"), row(64, 64, "plain")]);
    assert!(TableFile::parse("t", &twice.to_text()).unwrap_err().to_string().contains("twice"));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_the_old_table_stays() {
    let (dir, path) = saved("old");
    let error = file(Vec::new()).save(&path).unwrap_err();
    assert!(matches!(error, TableError::Unwritable { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_hash_tells_tables_apart_and_nothing_else() {
    let one = Table::of_file(file(vec![row(64, 64, "plain")]), limits());
    let same = Table::of_file(file(vec![row(64, 64, "plain")]), limits());
    assert_eq!(one.hash(), same.hash());
    same.choose("gemv_q4_0", &shape(1, 32)).unwrap();
    assert_eq!(one.hash(), same.hash(), "a look-up changes nothing");
    let all = [
        one,
        Table::of_file(file(vec![row(64, 64, "dequant@avx2")]), limits()),
        Table::of_file(file(Vec::new()), limits()),
        Table::default_on(Backend::Cpu, limits()),
        Table::default_for(Isa::Avx2),
        Table::baseline(),
    ];
    let hashes: std::collections::BTreeSet<&str> = all.iter().map(Table::hash).collect();
    assert_eq!(hashes.len(), all.len());
}

#[test]
fn every_built_in_table_is_embedded_under_the_name_of_its_device() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tables");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let file = TableFile::load(&path).unwrap();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), TableFile::file_name(&file.device));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), file.to_text(), "{}: not as it is written", path.display());
        let cc = file.device.arch.strip_prefix("sm_").and_then(|cc| cc.parse().ok());
        let limits = match cc.and_then(Limits::of_architecture) {
            Some(limits) => limits,
            None => Limits::cpu(file.device.arch.parse().unwrap(), 0),
        };
        let (table, loaded) = Table::for_device(&file.device, limits, &[]);
        assert_eq!(loaded, Loaded::Found { path: None }, "{}: not embedded", path.display());
        for row in &file.rows {
            let (_, kernel) =
                registry().find(&row.variant).unwrap_or_else(|| panic!("{}: no such variant", row.variant));
            assert_eq!(kernel.layout, row.layout, "{}", row.variant);
        }
        assert_eq!(table.file().unwrap(), file);
    }
}
