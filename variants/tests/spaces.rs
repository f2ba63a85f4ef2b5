//! What holds of every built-in space, and of a large one (R1, R2).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use harness_spec::{DType, Shape, VariantId};
use variants::{Backend, Isa, KernelSpec, Limits, Space, Table, registry};

fn kernels_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels")
}

fn source(kernel: &KernelSpec) -> String {
    let path = kernels_crate().join(&kernel.source);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {}: {e}", kernel.id(), path.display()))
}

/// The backends that an op has kernels for.
fn backends(space: &Space) -> BTreeSet<Backend> {
    space.kernels.iter().map(|k| k.backend).collect()
}

/// Whether a text has a name as a whole word.
fn has_word(text: &str, name: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == name)
}

#[test]
fn every_space_has_exactly_one_baseline_for_each_backend_and_type() {
    for space in registry().spaces() {
        assert!(!space.kernels.is_empty(), "{}: a space without a kernel", space.op);
        for backend in backends(space) {
            let plain: Vec<_> = space.kernels.iter().filter(|k| k.baseline && k.backend == backend).collect();
            assert!(plain.iter().all(|k| k.isa == Isa::Scalar), "{}: a baseline must run anywhere", space.op);
            assert!(plain.iter().all(|k| k.min_cc <= 75), "{}: a baseline must run anywhere", space.op);
            let types: BTreeSet<DType> =
                space.kernels.iter().filter(|k| k.backend == backend).flat_map(|k| k.dtypes.iter().copied()).collect();
            for dtype in &types {
                let count = plain.iter().filter(|k| k.dtypes.contains(dtype)).count();
                assert_eq!(count, 1, "{} {backend} {dtype}: baselines", space.op);
            }
            if types.is_empty() {
                assert_eq!(plain.len(), 1, "{} {backend}: baselines", space.op);
            }
        }
    }
}

#[test]
fn every_weight_type_has_a_space_that_takes_it() {
    for dtype in DType::ALL {
        assert!(registry().gemv(dtype).kernels.iter().any(|k| k.dtypes.contains(&dtype)), "{dtype}");
    }
}

/// Whether this is what the op of a weight type has behind the name of its file: `_q4_0`.
fn is_format(suffix: &str) -> bool {
    DType::ALL.iter().any(|dtype| suffix.strip_prefix('_') == Some(dtype.to_string().to_lowercase().as_str()))
}

#[test]
fn every_space_file_on_disk_is_embedded() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/spaces");
    let mut on_disk: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    on_disk.sort();
    let ops: Vec<_> = registry().spaces().iter().map(|s| s.op.as_str()).collect();
    assert!(ops.is_sorted(), "{ops:?}");
    // A file serves the op of its name, or ops of its name and a weight type.
    let serves = |file: &str, op: &str| op == file || op.strip_prefix(file).is_some_and(is_format);
    for file in &on_disk {
        assert!(ops.iter().any(|op| serves(file, op)), "{file}.toml is not embedded");
    }
    for op in ops {
        assert!(on_disk.iter().any(|file| serves(file, op)), "{op} is of no file");
    }
}

/// Every kernel has all that a record, a report and the compiler ask of it. That every op has a reference and a byte model
/// is proven in the `kernels` crate, where those are.
#[test]
fn the_registry_is_complete() {
    let mut hashes = BTreeMap::new();
    for (op, kernel) in registry().kernels() {
        let id = kernel.id();
        assert_eq!(kernel.op, op);
        let variant = kernel.default_variant();
        assert_eq!(variant.to_string().parse(), Ok(variant.clone()), "{id}");
        let (space, found) = registry().find(&variant).unwrap_or_else(|| panic!("{id}: its default is not found"));
        assert_eq!((space.op.as_str(), found), (op, kernel));
        assert!(!space.dims.is_empty() && !space.doc.is_empty() && !kernel.doc.is_empty(), "{id}");
        assert!(kernel.dtypes.is_empty() || kernel.layout.is_some(), "{id}: weights need a layout");
        let hash = kernel.content_hash(&source(kernel), []);
        assert_eq!(hash.len(), 64);
        if let Some(other) = hashes.insert(hash, id.clone()) {
            panic!("{id} and {other} are the same kernel");
        }
    }
}

#[test]
fn the_content_hash_changes_with_entry_source_and_headers() {
    let kernel = &registry().space("gemv_q4_0").unwrap().kernels[0];
    let mut other = kernel.clone();
    other.doc.push('.');
    let all = [
        kernel.content_hash("a", [("h", "b")]),
        kernel.content_hash("a", [("h", "c")]),
        kernel.content_hash("a", [("i", "b")]),
        kernel.content_hash("b", [("h", "b")]),
        kernel.content_hash("a", []),
        other.content_hash("a", [("h", "b")]),
    ];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn a_width_that_is_asked_of_the_machine_code_is_read_and_makes_no_other_kernel() {
    let fused = registry().space("gate_up_q4_0").unwrap().kernels.iter().find(|k| k.name == "fused").unwrap();
    assert_eq!(fused.load_bytes, Some(16));
    let mut other = fused.clone();
    other.load_bytes = None;
    assert_eq!(other.fingerprint(), fused.fingerprint());
}

/// A default must be there at shapes of every kind on the least device, or an op could not run without a table.
#[test]
fn every_op_has_a_variant_on_the_least_device_of_each_backend() {
    for space in registry().spaces() {
        let dims = space.dims.iter().filter(|d| *d != "M");
        let shape = Shape::of(dims.map(|d| match d.as_str() {
            "N" | "K" => (d.as_str(), 256),
            "KV" => (d.as_str(), 16),
            "DIM" => (d.as_str(), 64),
            "HEADS" => (d.as_str(), 8),
            "KV_HEADS" => (d.as_str(), 2),
            "LEN" => (d.as_str(), 10),
            "OUT" => (d.as_str(), 8),
            "PAIRING" => (d.as_str(), 0),
            "ROT" => (d.as_str(), 64),
            _ => (d.as_str(), 4096),
        }));
        for backend in backends(space) {
            let limits = match backend {
                Backend::Cpu => Limits::cpu(Isa::Scalar, 0),
                Backend::Cuda => Limits::of_architecture(75).unwrap(),
            };
            let plain = space.kernels.iter().find(|k| k.baseline && k.backend == backend).unwrap();
            if let Err(reason) = plain.admits(&plain.default_variant(), &shape, &limits) {
                panic!("{} does not run at {shape}: {reason}", plain.id());
            }
        }
    }
}

/// The default of every kernel is a configuration that its constraints admit somewhere.
#[test]
fn the_default_of_every_cuda_kernel_is_admitted_at_some_shape() {
    let sizes = [256u64, 1024, 4096, 16384];
    for (op, kernel) in registry().kernels().filter(|(_, k)| k.backend == Backend::Cuda) {
        let space = registry().space(op).unwrap();
        let limits = Limits::of_architecture(90).unwrap();
        let shapes = sizes.iter().flat_map(|&n| [1u64, 2, 8, 16].map(|m| (n, m)));
        let shapes = shapes.flat_map(|(n, m)| [16, 8].map(|kv| (n, m, kv)));
        let mut reasons = BTreeSet::new();
        let runs = shapes.into_iter().any(|(n, m, kv)| {
            let shape = Shape::of(space.dims.iter().map(|d| match d.as_str() {
                "M" => ("M", m),
                "KV" => ("KV", kv),
                "PAIRING" => ("PAIRING", 0),
                "DIM" => ("DIM", 64),
                "HEADS" => ("HEADS", 16),
                "KV_HEADS" => ("KV_HEADS", 4),
                "LEN" => ("LEN", 200),
                "OUT" => ("OUT", 8),
                "ROT" => ("ROT", 64),
                other => (other, n),
            }));
            kernel.admits(&kernel.default_variant(), &shape, &limits).map_err(|e| reasons.insert(e)).is_ok()
        });
        assert!(runs, "{}: its default never runs: {reasons:?}", kernel.id());
    }
}

/// STYLE.md section 8: a missing tunable is a compile error, never a default.
#[test]
fn every_cuda_source_guards_each_of_its_tunables() {
    for (_, kernel) in registry().kernels().filter(|(_, k)| k.backend == Backend::Cuda && !k.is_library()) {
        let text = source(kernel);
        let entry = kernel.entry.as_deref().unwrap();
        assert!(has_word(&text, entry), "{}: {} has no {entry}", kernel.id(), kernel.source);
        // Lines that a backslash joins are one line of the preprocessor.
        let joined = text.replace("\\\n", " ");
        let lines: Vec<&str> = joined.lines().map(str::trim).collect();
        for tunable in kernel.tunables.keys() {
            let guarded = lines.windows(2).any(|pair| {
                let negated = [format!("!defined({tunable})"), format!("!defined {tunable}")];
                let test = pair[0].starts_with("#if") && negated.iter().any(|n| pair[0].contains(n));
                (test || pair[0] == format!("#ifndef {tunable}")) && pair[1].starts_with("#error")
            });
            assert!(guarded, "{}: {} has no `#if !defined({tunable})` with an #error", kernel.id(), kernel.source);
        }
    }
}

#[test]
fn a_library_is_admitted_without_a_launch_and_never_chosen() {
    let limits = Limits::of_architecture(90).unwrap();
    let libraries: Vec<_> = registry().kernels().filter(|(_, k)| k.is_library()).collect();
    assert_eq!(libraries.iter().map(|(op, _)| *op).collect::<Vec<_>>(), ["gemv_f16", "gemv_f32"]);
    for (op, kernel) in libraries {
        let id = kernel.default_variant();
        let shape = |k| Shape::of([("N", 4096), ("K", k)]);
        assert_eq!(kernel.variants(&shape(4096), &limits).admitted, std::slice::from_ref(&id), "{op}");
        assert!(kernel.admits(&id, &shape(33), &limits).is_err() && kernel.geometry(&id, &shape(64), &limits).is_err());
        let chosen = Table::default_on(Backend::Cuda, limits);
        assert!(!chosen.choose(op, &shape(4096)).unwrap().spec.is_library(), "{op}");
    }
}

#[test]
fn no_cuda_source_is_left_out_of_the_spaces() {
    let named: BTreeSet<PathBuf> = registry().kernels().map(|(_, k)| PathBuf::from(&k.source)).collect();
    let mut folders = vec![kernels_crate().join("cuda")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "cu") {
                let name = path.strip_prefix(kernels_crate()).unwrap();
                assert!(named.contains(name), "{}: no space names it", name.display());
            }
        }
    }
}

/// 1,000 configurations with constraints of every kind: each is in one list, with its reason.
#[test]
fn a_space_of_a_thousand_configurations_is_accounted_for() {
    let text = r#"
        op = "gemv_q4_0"
        doc = "a test"
        dims = ["N", "K", "M"]
        [[kernels]]
        name = "large"
        backend = "cuda"
        dtypes = ["Q4_0"]
        layout = "gguf"
        doc = "a test"
        source = "large.cu"
        entry = "large"
        constraints = ["ROWS * 32 <= 256", "K % (VEC * 32) == 0", "cc >= 80 || STAGES == 1", "SPLIT <= K / 256"]
        [kernels.tunables]
        ROWS = [1, 2, 4, 8, 16]
        VEC = [1, 2, 4, 8, 16]
        STAGES = [1, 2, 3, 4]
        SPLIT = [1, 2, 4, 8, 16]
        UNROLL = [1, 2]
        [kernels.default]
        ROWS = 2
        VEC = 4
        STAGES = 1
        SPLIT = 1
        UNROLL = 2
        [kernels.launch]
        grid = ["ceil_div(N, ROWS)", "SPLIT"]
        block = "ROWS * 32"
        smem = "STAGES * VEC * 2048"
    "#;
    let space = Space::parse("large.toml", text, None, &[]).unwrap();
    let kernel = &space.kernels[0];
    let shape = Shape::of([("N", 1000), ("K", 896)]);
    let limits = Limits::of_architecture(75).unwrap();
    let all = kernel.variants(&shape, &limits);
    assert_eq!((all.enumerated(), all.admitted.len() + all.pruned.len()), (1000, 1000));
    let ids: BTreeSet<&VariantId> = all.admitted.iter().chain(all.pruned.iter().map(|(id, _)| id)).collect();
    assert_eq!(ids.len(), 1000, "each configuration once");
    // ROWS 4 of 5; VEC of 1, 2, 4 divide 896 / 32 = 28; one stage; SPLIT of 1, 2 are at most 3; both UNROLL.
    assert_eq!(all.admitted.len(), 4 * 3 * 2 * 2);
    assert_eq!(all.admitted[0], kernel.default_variant(), "a sweep that is cut short has timed the default");
    let count = |reason: &str| all.pruned.iter().filter(|(_, r)| r.contains(reason)).count();
    assert_eq!(count("ROWS * 32 <= 256 does not hold"), 200);
    assert_eq!(count("K % (VEC * 32) == 0 does not hold"), 800 * 2 / 5);
    assert_eq!(count("cc >= 80 || STAGES == 1 does not hold"), 480 * 3 / 4);
    assert_eq!(count("SPLIT <= K / 256 does not hold"), 120 * 3 / 5);
    let geometry = kernel.geometry(&all.admitted[0], &shape, &limits).unwrap();
    assert_eq!((geometry.grid, geometry.block, geometry.smem), ([500, 1, 1], [64, 1, 1], 8192));
    // On a newer device with more shared memory the same file has more to offer.
    assert!(kernel.variants(&shape, &Limits::of_architecture(90).unwrap()).admitted.len() > all.admitted.len());
}

#[test]
fn a_constraint_that_no_configuration_satisfies_is_an_answer() {
    let text = r#"
        op = "gemv_q4_0"
        doc = "a test"
        dims = ["N", "K", "M"]
        [[kernels]]
        name = "never"
        backend = "cuda"
        doc = "a test"
        source = "never.cu"
        entry = "never"
        constraints = ["ROWS > 8"]
        tunables = { ROWS = [1, 2] }
        default = { ROWS = 1 }
        launch = { grid = "N", block = "32" }
    "#;
    let space = Space::parse("never.toml", text, None, &[]).unwrap();
    let shape = Shape::of([("N", 64), ("K", 64)]);
    let all = space.kernels[0].variants(&shape, &Limits::of_architecture(90).unwrap());
    assert!(all.admitted.is_empty());
    assert_eq!(all.pruned.len(), 2);
    assert!(all.pruned.iter().all(|(_, reason)| reason == "ROWS > 8 does not hold"));
}

#[test]
fn a_variant_is_refused_with_the_reason_in_words() {
    let space = registry().space("gemv_q4_0").unwrap();
    let shape = Shape::of([("N", 64), ("K", 64)]);
    let vnni = space.kernels.iter().find(|k| k.isa == Isa::Avx512Vnni).unwrap();
    let on = |limits: Limits| vnni.admits(&vnni.default_variant(), &shape, &limits).unwrap_err();
    assert_eq!(on(Limits::cpu(Isa::Avx2, 0)), "needs avx512_vnni instructions, the processor has avx2");
    assert_eq!(on(Limits::of_architecture(90).unwrap()), "runs on a processor, not on a CUDA device");
    let mut foreign = vnni.default_variant();
    foreign.tunables.insert("NONE".to_owned(), 1);
    let refused = vnni.admits(&foreign, &shape, &Limits::cpu(Isa::Avx512Vnni, 0)).unwrap_err();
    assert!(refused.contains("is not in the space of"), "{refused}");
}

#[test]
fn geometry_that_no_device_takes_prunes_the_variant() {
    let launch = |grid: &str, block: &str, smem: &str| {
        let text = format!(
            "op = \"gemv_q4_0\"\ndoc = \"d\"\ndims = [\"N\", \"K\", \"M\"]\n[[kernels]]\nname = \"k\"\nbackend = \"cuda\"\n\
             doc = \"d\"\nsource = \"k.cu\"\nentry = \"k\"\n[kernels.launch]\ngrid = {grid}\nblock = {block}\nsmem = \"{smem}\"\n"
        );
        let space = Space::parse("k.toml", &text, None, &[]).unwrap();
        let kernel = &space.kernels[0];
        let shape = Shape::of([("N", 64), ("K", 64)]);
        kernel.admits(&kernel.default_variant(), &shape, &Limits::of_architecture(75).unwrap())
    };
    assert_eq!(launch("\"N\"", "\"32\"", "0"), Ok(()));
    assert!(launch("\"N - 64\"", "\"32\"", "0").unwrap_err().contains("`N - 64` is 0"));
    assert!(launch("[\"1\", \"N * 2000\"]", "\"32\"", "0").unwrap_err().contains("from 1 to 65535"));
    assert!(launch("\"N\"", "[\"32\", \"64\"]", "0").unwrap_err().contains("`32 * 64` is 2048"));
    assert!(launch("\"N\"", "\"32\"", "65537").unwrap_err().contains("from 0 to 65536"));
    // The share of shared memory stands behind the memory, and is 0 where it is left out.
    let shared = |percent: &str| launch("\"N\"", "\"32\"", &format!("0\"\nshared_percent = \"{percent}"));
    assert_eq!(shared("N"), Ok(()));
    assert!(shared("N + 37").unwrap_err().contains("`N + 37` is 101"));
    assert!(shared("0 - 1").unwrap_err().contains("from 0 to 100"));
    assert!(launch("\"N / (K - 64)\"", "\"32\"", "0").unwrap_err().contains("cannot be evaluated"));
}

/// What a fused product repeats follows from the launch, so that no number of it is written down.
#[test]
fn repeated_work_is_counted_by_the_grid() {
    let limits = Limits { sms: 132, ..Limits::of_architecture(90).unwrap() };
    let shape = Shape::of([("N", 28_672), ("K", 4096), ("M", 1)]);
    let times = |op: &str, name: &str| {
        let kernel =
            registry().space(op).unwrap().kernels.iter().find(|k| k.name == name && k.backend == Backend::Cuda);
        let kernel = kernel.unwrap_or_else(|| panic!("{op} has no {name}"));
        kernel.redundancy(&kernel.default_variant(), &shape, &limits).unwrap()
    };
    let fused = |name: &str| times("rmsnorm_gemv_q4_0", name);
    assert_eq!(fused("plain"), Some(28_672), "a norm for each row");
    assert_eq!(fused("streaming"), Some(28_672 / 2), "a norm for each group of lanes, which has two rows");
    assert_eq!(fused("each_block"), Some(28_672 / 16), "a norm for each tile of 16 rows");
    assert_eq!(fused("persistent"), Some(132 * 4), "a norm for each of four blocks a multiprocessor");
    assert_eq!(fused("epilogue"), Some(132 * 4));
    assert_eq!(times("rmsnorm", "held"), Some(1));
    assert_eq!(times("gemv_q4_0", "plain"), None, "nothing of it is work that once would be enough for");
}

#[test]
fn every_kernel_that_norms_says_how_often_and_every_design_of_it_is_there() {
    let norms = ["rmsnorm", "rmsnorm_gemv_", "qkv_rope_", "gate_up_", "norm_logits_"];
    let is_norm = |op: &str| norms.iter().any(|n| op == *n || n.ends_with('_') && op.starts_with(n));
    let mut designs = BTreeSet::new();
    for (_, kernel) in registry().kernels().filter(|(op, kernel)| kernel.backend == Backend::Cuda && is_norm(op)) {
        assert!(kernel.redundant.is_some(), "{} does not say how often it norms a token", kernel.id());
        designs.extend(kernel.designs.iter().map(String::as_str));
    }
    assert!(["V40", "V41", "V42", "V43", "V44"].iter().all(|v| designs.contains(v)), "{designs:?}");
}

/// The designs of the inventory for 4-bit products, heads, norms fused with products, and attention. What no kernel
/// carries is told in ARCHITECTURE.md.
#[test]
fn every_design_is_carried_by_a_kernel_or_told_to_be_missing() {
    let carried: BTreeSet<&str> =
        registry().kernels().flat_map(|(_, kernel)| kernel.designs.iter().map(String::as_str)).collect();
    let text = std::fs::read_to_string(kernels_crate().join("../ARCHITECTURE.md")).unwrap();
    let told = |design: &str| has_word(&text, design);
    for design in (1..=22).chain(30..=36).chain(40..=44).chain(70..=81).map(|n| format!("V{n}")) {
        let told = told(&design);
        assert!(carried.contains(design.as_str()) != told, "{design}: carried by a kernel, or told to be missing?");
    }
}

#[test]
fn only_the_expression_of_repeated_work_knows_the_blocks() {
    let space = |grid: &str, redundant: &str| {
        let text = format!(
            "op = \"x\"\ndoc = \"x\"\ndims = [\"N\"]\n[[kernels]]\nname = \"a\"\nbackend = \"cuda\"\ndoc = \"x\"\n\
             source = \"a.cu\"\nentry = \"a\"\nredundant = \"{redundant}\"\n\
             [kernels.launch]\ngrid = \"{grid}\"\nblock = \"32\"\n"
        );
        Space::parse("x.toml", &text, None, &[]).map_err(|e| e.to_string())
    };
    let fine = space("N", "blocks * 2").unwrap();
    let (kernel, limits) = (&fine.kernels[0], Limits::of_architecture(75).unwrap());
    let times = |n| kernel.redundancy(&kernel.default_variant(), &Shape::of([("N", n)]), &limits);
    assert_eq!(times(7), Ok(Some(14)));
    let said = space("blocks", "1").unwrap_err();
    assert!(said.contains("the grid") && said.contains("blocks"), "{said}");
    let said = space("N", "block").unwrap_err();
    assert!(said.contains("the repeated work `block`") && said.contains("blocks"), "{said}");
    let none = space("N", "N - 7").unwrap();
    let nothing = none.kernels[0].redundancy(&none.kernels[0].default_variant(), &Shape::of([("N", 7)]), &limits);
    assert!(nothing.unwrap_err().to_string().contains("must be from 1"));
}
