//! Kernels of a user's folder: the same checks as built-in ones, each with a message that says what to change.

use std::path::Path;

use harness_spec::Shape;
use variants::{ExprError, Isa, Limits, Registry, SpaceError, Table, registry};

const SOURCE: &str =
    "#if !defined(ROWS)\n#error \"ROWS\"\n#endif\nextern \"C\" __global__ void mine(const void* W) {}\n";

const SPACE: &str = r#"op = "gemv_q4_0"
doc = "my kernels"

[[kernels]]
name = "mine"
backend = "cuda"
dtypes = ["Q4_0"]
layout = "gguf"
activations = "f32"
doc = "My own."
source = "mine.cu"
entry = "mine"
constraints = ["K % 32 == 0"]
[kernels.defines]
BLOCK = 18
FORMAT = "Q4_0"
[kernels.tunables]
ROWS = [1, 2]
[kernels.default]
ROWS = 2
[kernels.launch]
grid = "ceil_div(N, ROWS)"
block = "ROWS * 32"
"#;

fn load(files: &[(&str, &str)]) -> Result<Registry, SpaceError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let mut all = registry().clone();
    all.load_dir(dir.path()).map(|()| all)
}

/// The error of a folder whose space has one text replaced.
fn broken(from: &str, to: &str) -> SpaceError {
    assert!(SPACE.contains(from), "{from}");
    let error = load(&[("mine.toml", &SPACE.replacen(from, to, 1)), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(error.to_string().contains("mine.toml"), "{error}");
    error
}

#[test]
fn a_kernel_of_a_folder_joins_its_op_and_is_found() {
    let all = load(&[("mine.toml", SPACE), ("mine.cu", SOURCE)]).unwrap();
    let (space, kernel) = all.find(&"gemv_q4_0/mine[ROWS=1]@cuda".parse().unwrap()).unwrap();
    assert_eq!(space.op, "gemv_q4_0");
    assert!(kernel.folder.as_ref().unwrap().is_absolute());
    assert_eq!(
        kernel.definitions(&kernel.default_variant()).into_iter().collect::<Vec<_>>(),
        [
            ("BLOCK".to_owned(), "18".to_owned()),
            ("FORMAT".to_owned(), "Q4_0".to_owned()),
            ("ROWS".to_owned(), "2".to_owned()),
        ]
    );
    let shape = Shape::of([("N", 65), ("K", 64)]);
    let all = kernel.variants(&shape, &Limits::of_architecture(75).unwrap());
    assert_eq!((all.admitted.len(), all.pruned.len()), (2, 0));
    assert_eq!(
        registry().find(&"gemv_q4_0/mine[ROWS=1]@cuda".parse().unwrap()),
        None,
        "the built-in registry is as it was"
    );
}

#[test]
fn a_value_that_is_not_of_the_space_is_not_found() {
    let all = load(&[("mine.toml", SPACE), ("mine.cu", SOURCE)]).unwrap();
    for id in
        ["gemv_q4_0/mine[ROWS=3]@cuda", "gemv_q4_0/mine@cuda", "gemv_q4_0/mine[ROWS=1]@cpu", "gemv/mine[ROWS=1]@cuda"]
    {
        assert_eq!(all.find(&id.parse().unwrap()), None, "{id}");
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_line() {
    let error = broken("entry = ", "enter = ");
    assert!(matches!(error, SpaceError::Syntax { .. }));
    let text = error.to_string();
    assert!(text.contains("enter") && text.contains("line 12"), "{text}");
}

#[test]
fn a_file_that_is_no_toml_is_shown_with_its_line() {
    let text = broken("[kernels.launch]", "[kernels.launch").to_string();
    assert!(text.contains("line 21") && text.contains("[kernels.launch"), "{text}");
}

#[test]
fn a_missing_field_is_named() {
    let text = broken("doc = \"My own.\"\n", "").to_string();
    assert!(text.contains("missing field `doc`"), "{text}");
}

#[test]
fn an_unknown_op_comes_with_those_that_exist() {
    let error = broken("op = \"gemv_q4_0\"", "op = \"gemv_q3\"");
    // Its expressions use dimensions of an op that is not there, so the op must be what is complained of.
    assert!(
        matches!(&error, SpaceError::UnknownOp { op, known, .. } if op == "gemv_q3" && known.contains("gemv_q4_0")),
        "{error}"
    );
}

#[test]
fn other_dimensions_than_those_of_the_op_are_refused() {
    let error = broken("doc = \"my kernels\"", "doc = \"my kernels\"\ndims = [\"N\", \"K\"]");
    assert!(matches!(error, SpaceError::OtherDims { .. }), "{error}");
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let error = load(&[("mine.toml", SPACE)]).unwrap_err();
    assert!(matches!(&error, SpaceError::NoSource { path, .. } if path.ends_with("mine.cu")), "{error}");
}

#[test]
fn a_source_outside_of_the_folder_is_refused() {
    for path in ["../mine.cu", "/tmp/mine.cu"] {
        let error = broken("source = \"mine.cu\"", &format!("source = {path:?}"));
        assert!(matches!(error, SpaceError::SourceOutside { .. }), "{error}");
    }
}

#[test]
fn a_source_without_the_entry_or_a_tunable_is_refused() {
    let error = broken("entry = \"mine\"", "entry = \"min\"");
    assert!(matches!(&error, SpaceError::NoEntry { name, .. } if name == "min"), "{error}");
    let space = SPACE.replace("ROWS = [1, 2]", "ROWS = [1, 2]\nVEC = [4]").replace("ROWS = 2\n", "ROWS = 2\nVEC = 4\n");
    let error = load(&[("mine.toml", &space), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(&error, SpaceError::Unused { name, .. } if name == "VEC"), "{error}");
}

#[test]
fn defaults_must_be_there_and_be_values() {
    let error = broken("[kernels.default]\nROWS = 2\n", "");
    assert!(matches!(&error, SpaceError::NoDefault { tunable, .. } if tunable == "ROWS"), "{error}");
    let error = broken("ROWS = 2\n", "ROWS = 3\n");
    assert!(matches!(&error, SpaceError::DefaultNotAValue { value: 3, .. }), "{error}");
    let error = broken("ROWS = 2\n", "ROWS = 2\nVEC = 1\n");
    assert!(matches!(&error, SpaceError::DefaultOfNothing { name, .. } if name == "VEC"), "{error}");
}

#[test]
fn values_must_be_several_different_ones() {
    for values in ["[]", "[2, 2]"] {
        let error = broken("ROWS = [1, 2]", &format!("ROWS = {values}"));
        assert!(matches!(error, SpaceError::BadValues { .. }), "{error}");
    }
}

#[test]
fn names_of_macros_must_be_free() {
    let error = broken("BLOCK = 18", "ROWS = 18");
    assert!(matches!(&error, SpaceError::DefineIsTunable { name, .. } if name == "ROWS"), "{error}");
    for name in ["K", "block", "9A"] {
        let error = broken("BLOCK = 18", &format!("{name} = 18"));
        assert!(matches!(&error, SpaceError::BadMacro { name: n, .. } if n == name), "{error}");
    }
}

#[test]
fn a_second_kernel_of_one_name_is_refused() {
    let error = load(&[("a.toml", SPACE), ("b.toml", SPACE), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(&error, SpaceError::Duplicate { file, .. } if file.ends_with("b.toml")), "{error}");
    let twice = format!("{SPACE}\n{}", &SPACE[SPACE.find("[[kernels]]").unwrap()..]);
    let error = load(&[("mine.toml", &twice), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(error, SpaceError::Duplicate { .. }), "{error}");
}

#[test]
fn the_baseline_of_an_op_cannot_be_replaced() {
    let twice =
        SPACE[SPACE.find("[[kernels]]").unwrap()..].replace("name = \"mine\"", "name = \"other\"\nbaseline = true");
    let space = format!("{}\n{twice}", SPACE.replace("name = \"mine\"", "name = \"mine\"\nbaseline = true"));
    let error = load(&[("mine.toml", &space), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(error, SpaceError::SecondBaseline { .. }), "{error}");
}

#[test]
fn a_bad_expression_comes_with_its_kernel_and_text() {
    let of = |to: &str| match broken("K % 32 == 0", to) {
        SpaceError::Expression { kernel, what: "the constraint", expression, source, .. } => {
            assert_eq!((kernel.as_str(), expression.as_str()), ("mine", to));
            *source
        }
        other => panic!("{other}"),
    };
    assert!(matches!(of("K % 32 =="), ExprError::Syntax(_)));
    assert!(matches!(of("K % 32"), ExprError::Type { .. }));
    assert!(matches!(of("KK % 32 == 0"), ExprError::UnknownName { name, .. } if name == "KK"));
    assert!(matches!(of("ceil(K) == 0"), ExprError::UnknownFunction(name) if name == "ceil"));
    let error = broken("block = \"ROWS * 32\"", "block = \"ROWS <= 32\"");
    assert!(error.to_string().contains("kernel mine: the block `ROWS <= 32` must be an integer"), "{error}");
    let error = broken("block = \"ROWS * 32\"", "block = []");
    assert!(matches!(error, SpaceError::BadDims { .. }), "{error}");
}

#[test]
fn keys_of_the_other_backend_are_refused() {
    let error = broken("entry = \"mine\"\n", "");
    assert!(matches!(&error, SpaceError::MissingKey { key: "entry", .. }), "{error}");
    let error = broken("backend = \"cuda\"", "backend = \"cuda\"\nisa = \"avx2\"");
    assert!(matches!(&error, SpaceError::UselessKey { key: "isa", .. }), "{error}");
    let error = broken("backend = \"cuda\"", "backend = \"cpu\"");
    assert!(matches!(&error, SpaceError::UselessKey { key: "entry", .. }), "{error}");
}

#[test]
fn a_library_has_no_source_to_compile_and_is_built_in() {
    let library = broken("backend = \"cuda\"", "backend = \"cuda\"\nrole = \"library\"");
    assert!(library.to_string().contains("`entry` means nothing to a library kernel"), "{library}");
    let space = "op = \"gemv_q4_0\"\ndoc = \"x\"\n[[kernels]]\nname = \"mine\"\nbackend = \"cuda\"\nrole = \"library\"\n\
                 dtypes = [\"Q4_0\"]\nlayout = \"gguf\"\ndoc = \"x\"\nsource = \"mine.cu\"\n";
    let error = load(&[("mine.toml", space), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(&error, SpaceError::MissingKey { key: "entry", .. }), "{error}");
    let on_a_processor = space.replace("\"cuda\"", "\"cpu\"");
    let error = load(&[("mine.toml", &on_a_processor), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(&error, SpaceError::UselessKey { key: "backend", .. }), "{error}");
}

#[test]
fn code_for_a_processor_is_built_in_and_not_loaded() {
    let cut = |text: &str, from: &str, to: &str| {
        let (a, b) = (text.find(from).unwrap(), text.find(to).unwrap());
        text[..a].to_owned() + &text[b..]
    };
    let cpu = SPACE.replace("\"cuda\"", "\"cpu\"").replace("entry = \"mine\"\n", "");
    let cpu = cut(&cpu, "[kernels.defines]", "[kernels.tunables]");
    let cpu = &cpu[..cpu.find("[kernels.launch]").unwrap()];
    let error = load(&[("mine.toml", cpu), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(error, SpaceError::NotCuda { .. }), "{error}");
}

#[test]
fn a_name_that_is_no_part_of_an_id_is_refused() {
    for name in ["Mine", "my kernel", "", "a@b@c", "a/b"] {
        let error = broken("name = \"mine\"", &format!("name = {name:?}"));
        assert!(matches!(error, SpaceError::BadName { .. }), "{error}");
    }
}

#[test]
fn more_configurations_than_can_be_measured_are_refused() {
    let values: Vec<String> = (1..=400).map(|v| v.to_string()).collect();
    let list = values.join(", ");
    let space = SPACE
        .replace("ROWS = [1, 2]", &format!("ROWS = [{list}]\nVEC = [{list}]"))
        .replace("ROWS = 2\n", "ROWS = 2\nVEC = 2\n");
    let error = load(&[("mine.toml", &space), ("mine.cu", SOURCE)]).unwrap_err();
    assert!(matches!(error, SpaceError::TooMany { count: 160_000, .. }), "{error}");
}

#[test]
fn a_folder_that_is_none_and_one_without_spaces_are_refused() {
    let mut all = registry().clone();
    assert!(matches!(all.load_dir(Path::new("/nowhere/at/all")), Err(SpaceError::Unreadable { .. })));
    assert!(matches!(load(&[("mine.cu", SOURCE)]), Err(SpaceError::Empty { .. })));
}

#[test]
fn nothing_is_added_where_one_file_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.toml"), SPACE).unwrap();
    std::fs::write(dir.path().join("b.toml"), "op =").unwrap();
    std::fs::write(dir.path().join("mine.cu"), SOURCE).unwrap();
    let mut all = registry().clone();
    assert!(all.load_dir(dir.path()).is_err());
    assert_eq!(all.spaces(), registry().spaces());
}

#[test]
fn a_users_kernel_never_runs_by_default() {
    let all = load(&[("mine.toml", SPACE), ("mine.cu", SOURCE)]).unwrap();
    let at = |name: &str| all.space("gemv_q4_0").unwrap().kernels.iter().position(|k| k.name == name);
    let last_built_in = registry().space("gemv_q4_0").unwrap().kernels.last().unwrap();
    assert!(at("mine") < at(&last_built_in.name));
    let (kernel, _) = Table::default_for(Isa::Scalar).gemv(harness_spec::DType::Q4_0, 64, 64, Isa::Scalar, false);
    assert_eq!(kernel.folder, None);
}
