//! Damaged and adversarial files: refused with a message that names the fault, or read right. GB1 to GB10 are those of
//! the specification; each has the smallest file that a reader with that defect gets wrong.

mod tiny;

use std::io::Write as _;

use engine::gguf::{Gguf, GgufError, GgufWriter};
use engine::model::{ConfigError, LoadError, load_model};
use engine::synth::Scheme;
use harness_spec::DType;
use kernels::cpu::{Cpu, CpuOptions, Matrix, Precision, Weights};
use variants::{Isa, Table};

/// A file with one matrix of one block a row.
fn one_tensor(dtype: DType, n: usize, data: &[u8]) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.tensor("w", dtype, &[dtype.block_len(), n]).unwrap();
    let mut bytes = Vec::new();
    writer.write(&mut bytes, |_, _, _, out| out.write_all(data)).unwrap();
    bytes
}

/// The weights of one block, read through the file and through the matrix of every instruction set and table.
fn read_block(dtype: DType, block: &[u8]) -> Vec<f32> {
    let gguf = Gguf::from_bytes(one_tensor(dtype, 1, block)).unwrap();
    let info = gguf.tensor("w").unwrap();
    let mut all: Vec<Vec<f32>> = Vec::new();
    for isa in Isa::available() {
        for table in [Table::default_for(isa), Table::baseline()] {
            let cpu = Cpu::new(CpuOptions { threads: 1, isa, table, pin: false });
            let weights = Weights::Shared { owner: gguf.mapping().clone(), range: info.span.clone() };
            let matrix = Matrix::from_gguf(&cpu, dtype, 1, info.k(), weights, Precision::Fast).unwrap();
            let mut row = vec![f32::NAN; info.k()];
            matrix.dequantize_row(0, &mut row);
            all.push(row);
        }
    }
    assert!(all.iter().all(|row| *row == all[0]), "{dtype}: the kernels' layouts disagree");
    all.swap_remove(0)
}

const ONE: [u8; 2] = [0x00, 0x3c]; // 1.0 as f16
const TWO: [u8; 2] = [0x00, 0x40]; // 2.0
const HALF: [u8; 2] = [0x00, 0x38]; // 0.5

/// Nibbles 0..15 low, 15..0 high: every code once in each half.
fn ramp() -> Vec<u8> {
    (0..16u8).map(|i| i | ((15 - i) << 4)).collect()
}

#[test]
fn gb1_low_nibbles_are_the_first_half_of_a_block() {
    let q4_0 = read_block(DType::Q4_0, &[&ONE[..], &ramp()].concat());
    let q4_1 = read_block(DType::Q4_1, &[&ONE[..], &TWO, &ramp()].concat());
    for i in 0..16 {
        assert_eq!((q4_0[i], q4_0[16 + i]), (i as f32 - 8.0, 7.0 - i as f32));
        assert_eq!((q4_1[i], q4_1[16 + i]), (i as f32 + 2.0, 17.0 - i as f32));
    }
}

/// A Q4_K block: d = 1, dmin = 0.5, scales 1..=8 × 7 and minima 8..1 × 6 (six bits wide), all codes 3.
fn q4_k_block() -> (Vec<u8>, Vec<f32>) {
    let scale: Vec<u8> = (1..=8).map(|j| j * 7).collect();
    let min: Vec<u8> = (1..=8).map(|j| (9 - j) * 6).collect();
    let mut packed = [0u8; 12];
    for j in 0..4 {
        packed[j] = scale[j] | (scale[j + 4] >> 4) << 6;
        packed[j + 4] = min[j] | (min[j + 4] >> 4) << 6;
        packed[j + 8] = (scale[j + 4] & 15) | (min[j + 4] & 15) << 4;
    }
    let block = [&ONE[..], &HALF, &packed, &[0x33; 128]].concat();
    let want = (0..256).map(|i| f32::from(scale[i / 32]) * 3.0 - 0.5 * f32::from(min[i / 32])).collect();
    (block, want)
}

#[test]
fn gb2_minima_are_added_in_q4_1_and_subtracted_in_q4_k() {
    let negative = [0x00, 0xc0]; // -2.0
    let q4_1 = read_block(DType::Q4_1, &[&ONE[..], &negative, &[0x55; 16]].concat());
    assert!(q4_1.iter().all(|&w| w == 3.0));
    let (block, want) = q4_k_block();
    assert_eq!(read_block(DType::Q4K, &block), want);
}

#[test]
fn gb3_scales_of_sub_blocks_4_to_7_have_their_upper_bits_elsewhere() {
    let (block, want) = q4_k_block();
    let got = read_block(DType::Q4K, &block);
    assert_eq!(got[128..], want[128..]);
    assert_eq!(want[128], 93.0, "a scale of 35 needs its upper bits");
}

#[test]
fn gb4_the_upper_bits_of_q6_k_go_by_quarters_and_codes_are_centred() {
    let mut block = vec![0u8; 210];
    // Low bits are zero; the two upper bits of quarter j of the first half are j.
    block[128..160].fill(0b11_10_01_00);
    block[192..208].fill(1);
    block[208..].copy_from_slice(&ONE);
    let got = read_block(DType::Q6K, &block);
    for (i, &w) in got.iter().enumerate() {
        let want = if i < 128 { (i / 32 * 16) as f32 - 32.0 } else { -32.0 };
        assert_eq!(w, want, "weight {i}");
    }
}

#[test]
fn gb5_q8_0_bytes_are_signed_and_ternary_planes_lie_two_bits_apart() {
    let codes: Vec<u8> = (0..32).map(|i| (i * 8 - 127) as i8 as u8).collect();
    let got = read_block(DType::Q8_0, &[&ONE[..], &codes].concat());
    assert!((0..32).all(|i| got[i] == i as f32 * 8.0 - 127.0));

    // Byte m of each half holds weights m, m + 32, m + 64 and m + 96.
    let mut block = vec![0b01_01_01_01u8; 66];
    block[..32].fill(0b10_01_00_10);
    block[64..].copy_from_slice(&TWO);
    let got = read_block(DType::TQ2_0, &block);
    let quarter = |q: usize| &got[q * 32..(q + 1) * 32];
    for (q, want) in [2.0, -2.0, 0.0, 2.0].into_iter().enumerate() {
        assert!(quarter(q).iter().all(|&w| w == want), "quarter {q}");
    }
    assert!(got[128..].iter().all(|&w| w == 0.0));
}

#[test]
fn gb5_the_ternary_code_3_is_refused_with_the_tensor_named() {
    let shape = engine::synth::Shape { hidden: 256, head_dim: 64, ..tiny::llama() };
    let mut bytes = tiny::bytes(&shape, Scheme::TQ2_0, 1);
    let span = Gguf::from_bytes(bytes.clone()).unwrap().tensor("blk.1.attn_q.weight").unwrap().span.clone();
    bytes[span.start + 7] = 0xff;
    let error = load(bytes).unwrap_err();
    assert!(matches!(error, LoadError::Matrix { .. }));
    assert!(error.to_string().contains("blk.1.attn_q.weight"), "{error}");
}

#[test]
fn gb6_a_subnormal_scale_is_not_flushed_to_zero() {
    let subnormal = [0x01, 0x00]; // 2^-24, the smallest f16
    let got = read_block(DType::Q4_0, &[&subnormal[..], &[0xff; 16]].concat());
    assert!(got.iter().all(|&w| w == 7.0 * 2.0f32.powi(-24)), "{got:?}");
}

#[test]
fn gb7_blocks_at_odd_multiples_of_two_bytes_are_read_right() {
    // With an alignment of 2 the second tensor begins 2 bytes past a multiple of 4, and blocks of 18 and 34 bytes
    // wander over every phase of 16.
    for dtype in [DType::Q4_0, DType::Q8_0, DType::Q6K, DType::TQ2_0, DType::F16] {
        let mut writer = GgufWriter::new();
        writer.alignment(2);
        let k = dtype.block_len().max(32);
        writer.tensor("pad", DType::F16, &[1]).unwrap();
        writer.tensor("w", dtype, &[k, 5]).unwrap();
        let values: Vec<f32> = (0..5 * k).map(|i| (i % 3) as f32 - 1.0).collect();
        let encoded = kernels::quant::quantize(dtype, &values).unwrap();
        let mut bytes = Vec::new();
        let data =
            |name: &str, out: &mut dyn std::io::Write| out.write_all(if name == "pad" { &ONE } else { &encoded });
        writer.write(&mut bytes, |name, _, _, out| data(name, out)).unwrap();
        let gguf = Gguf::from_bytes(bytes).unwrap();
        let info = gguf.tensor("w").unwrap();
        let mut decoded = vec![0.0; 5 * k];
        kernels::quant::dequantize_row(dtype, &encoded, &mut decoded);
        for isa in Isa::available() {
            let cpu = Cpu::new(CpuOptions { threads: 1, isa, table: Table::default_for(isa), pin: false });
            let weights = Weights::Shared { owner: gguf.mapping().clone(), range: info.span.clone() };
            let matrix = Matrix::from_gguf(&cpu, dtype, 5, k, weights, Precision::Fast).unwrap();
            for row in 0..5 {
                let mut got = vec![f32::NAN; k];
                matrix.dequantize_row(row, &mut got);
                assert_eq!(got, decoded[row * k..][..k], "{dtype} row {row} on {isa}");
            }
        }
    }
}

#[test]
fn gb8_data_begins_at_the_next_multiple_of_the_files_alignment() {
    for alignment in [1, 8, 32, 256] {
        let mut writer = GgufWriter::new();
        writer.alignment(alignment);
        writer.meta("odd.length", "x");
        writer.tensor("a", DType::F32, &[3]).unwrap();
        writer.tensor("b", DType::F32, &[5, 2]).unwrap();
        let mut bytes = Vec::new();
        let fill = |name: &str, dims: &[usize]| {
            let len: usize = dims.iter().product();
            let first = if name == "a" { 1.0f32 } else { 100.0 };
            (0..len).flat_map(|i| (first + i as f32).to_le_bytes()).collect::<Vec<u8>>()
        };
        writer.write(&mut bytes, |name, _, dims, out| out.write_all(&fill(name, dims))).unwrap();
        assert_eq!(bytes.len() as u64, writer.file_bytes());
        let gguf = Gguf::from_bytes(bytes).unwrap();
        for name in ["a", "b"] {
            let info = gguf.tensor(name).unwrap();
            assert!(info.span.start.is_multiple_of(alignment as usize));
            assert_eq!(gguf.data(info), fill(name, info.dims()), "{name} at alignment {alignment}");
        }
    }
}

#[test]
fn gb8_a_matrix_with_its_dimensions_swapped_is_refused_by_name() {
    let bytes = tiny::bytes(&tiny::llama(), Scheme::F32, 1);
    let name = b"blk.0.ffn_gate.weight";
    let at = find(&bytes, name) + name.len() + 4;
    let mut swapped = bytes.clone();
    swapped[at..at + 8].copy_from_slice(&bytes[at + 8..at + 16]);
    swapped[at + 8..at + 16].copy_from_slice(&bytes[at..at + 8]);
    let error = load(swapped).unwrap_err();
    assert!(
        matches!(&error, LoadError::TensorShape { tensor, found, want }
        if tensor == "blk.0.ffn_gate.weight" && found[..] == [96, 64] && want[..] == [64, 96]),
        "{error}"
    );
}

#[test]
fn gb9_rope_factors_are_part_of_the_model_and_linear_scaling_joins_them_once() {
    let plain = load(tiny::bytes(&tiny::llama(), Scheme::F32, 1)).unwrap();
    assert_eq!(plain.rope_factors, None);
    let shape = tiny::llama3();
    let scaled = load(tiny::bytes(&shape, Scheme::F32, 1)).unwrap();
    let want = shape.rope_llama3.unwrap().factors(shape.rope_base, shape.head_dim);
    assert_eq!(scaled.rope_factors.as_deref(), Some(&want[..]));
    assert!(want[0] == 1.0 && want[7] == 8.0);
    let both = engine::synth::Shape { rope_linear: Some(4.0), ..shape };
    let both = load(tiny::bytes(&both, Scheme::F32, 1)).unwrap();
    assert_eq!(both.rope_factors, Some(want.iter().map(|f| 4.0 * f).collect()));
}

#[test]
fn gb10_the_last_row_and_the_tail_of_k_are_read() {
    // 37 rows fill no tile, 96 weights no register.
    let values: Vec<f32> = (0..37 * 96).map(|i| if i % 96 >= 64 || i / 96 == 36 { 1.0 } else { 0.0 }).collect();
    let bytes = kernels::quant::quantize(DType::Q8_0, &values).unwrap();
    for isa in Isa::available() {
        let cpu = Cpu::new(CpuOptions { threads: 2, isa, table: Table::default_for(isa), pin: false });
        let weights = Weights::Owned(bytes.clone());
        let matrix = Matrix::from_gguf(&cpu, DType::Q8_0, 37, 96, weights, Precision::Fast).unwrap();
        let mut row = vec![f32::NAN; 96];
        for n in 0..37 {
            matrix.dequantize_row(n, &mut row);
            let want = &values[n * 96..][..96];
            assert!(row.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-2), "row {n} on {isa}");
        }
    }
}

#[test]
fn every_block_type_decodes_to_the_floats_that_ggml_makes_of_it() {
    #[derive(serde::Deserialize)]
    struct Case {
        block: String,
        weights_f32_le: String,
    }
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    };
    let cases: std::collections::BTreeMap<DType, Case> =
        serde_json::from_str(include_str!("fixtures/ggml_blocks.json")).unwrap();
    assert_eq!(cases.len(), DType::ALL.len() - 1, "all but F32, which needs no decoding");
    for (dtype, case) in cases {
        let want: Vec<f32> =
            bytes(&case.weights_f32_le).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut got = vec![f32::NAN; want.len()];
        kernels::quant::dequantize_row(dtype, &bytes(&case.block), &mut got);
        assert_eq!(got, want, "{dtype}");
        assert!(want.iter().any(|w| *w != 0.0));
    }
}

// ---- What is wrong with a file is said by name. ----

fn load(bytes: Vec<u8>) -> Result<engine::model::Model, LoadError> {
    let cpu = Cpu::new(CpuOptions { threads: 1, ..CpuOptions::default() });
    load_model(&Gguf::from_bytes(bytes)?, &cpu, Precision::Fast)
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).expect("the file has it")
}

fn open_error(bytes: Vec<u8>) -> GgufError {
    Gguf::from_bytes(bytes).unwrap_err()
}

#[test]
fn other_files_versions_and_byte_orders_are_refused_by_name() {
    let good = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    let with_version = |v: [u8; 4]| [&good[..4], &v, &good[8..]].concat();
    assert!(matches!(open_error(with_version([1, 0, 0, 0])), GgufError::Version1));
    assert!(matches!(open_error(with_version([0, 0, 0, 3])), GgufError::BigEndian { version: 3 }));
    assert!(matches!(open_error(with_version([4, 0, 0, 0])), GgufError::Version { version: 4 }));
    assert!(matches!(open_error(with_version([0; 4])), GgufError::Version { version: 0 }));
    assert!(Gguf::from_bytes(with_version([2, 0, 0, 0])).is_ok(), "version 2 has the same layout");
    let zip = open_error([b"PK\x03\x04", &good[4..]].concat()).to_string();
    assert!(zip.contains("not a GGUF file") && zip.contains("zip"), "{zip}");
    assert!(matches!(open_error(vec![]), GgufError::TooShort { bytes: 0 }));
    assert!(matches!(open_error(b"GGUF\x03\0\0\0".to_vec()), GgufError::TooShort { bytes: 8 }));
}

#[test]
fn a_truncated_file_says_how_many_bytes_it_should_have() {
    let good = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    let cut = good.len() - 100;
    let error = open_error(good[..cut].to_vec());
    let GgufError::Truncated { expected, actual, .. } = error else { panic!("{error}") };
    assert_eq!((expected, actual), (good.len() as u64, cut as u64));
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let good = tiny::bytes(&tiny::qwen2(), Scheme::Q4_0, 1);
    let folder = tempfile::tempdir().unwrap();
    // Twenty offsets spread by the golden ratio, so that both header and data are hit.
    for i in 1..=20u64 {
        let cut = (good.len() as u64 * ((i * 0x9e37_79b9) % (1 << 32)) / (1 << 32)) as usize;
        let path = folder.path().join(format!("{cut}.gguf"));
        std::fs::File::create(&path).unwrap().write_all(&good[..cut]).unwrap();
        let error = Gguf::open(&path).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("truncated") || message.contains("too few"), "cut at {cut}: {message}");
    }
}

#[test]
fn an_unknown_tensor_type_is_named_with_its_tensor() {
    let bytes = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    let name = b"blk.1.ffn_up.weight";
    let at = find(&bytes, name) + name.len() + 4 + 16;
    let with_type = |id: u32| {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
        open_error(bytes).to_string()
    };
    let iq = with_type(20);
    assert!(iq.contains("`blk.1.ffn_up.weight` has type IQ4_NL"), "{iq}");
    assert!(with_type(999).contains("number 999"));
}

#[test]
fn offsets_that_are_misaligned_overlap_or_leave_the_file_are_refused() {
    let bytes = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    let name = b"blk.1.ffn_up.weight";
    let at = find(&bytes, name) + name.len() + 4 + 16 + 4;
    let with_offset = |offset: u64| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        open_error(bytes)
    };
    assert!(matches!(with_offset(33), GgufError::Misaligned { offset: 33, .. }));
    assert!(matches!(with_offset(64), GgufError::Overlap { .. }));
    assert!(matches!(with_offset(1 << 40), GgufError::Truncated { .. }));
    assert!(matches!(with_offset(u64::MAX - 31), GgufError::Shape { .. }));
}

#[test]
fn names_that_occur_twice_are_refused() {
    let bytes = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    let renamed = |from: &[u8], to: &[u8]| {
        let mut bytes = bytes.clone();
        let at = find(&bytes, from);
        bytes[at..at + to.len()].copy_from_slice(to);
        open_error(bytes)
    };
    assert!(matches!(renamed(b"blk.1.attn_q.weight", b"blk.0.attn_q.weight"), GgufError::DuplicateTensor { .. }));
    assert!(matches!(renamed(b"general.name", b"general.type"), GgufError::DuplicateKey { .. }));
}

#[test]
fn a_count_beyond_the_file_is_refused_before_anything_is_reserved() {
    let good = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    for at in [8, 16] {
        for count in [1 << 20, 1 << 40, u64::MAX] {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            assert!(matches!(open_error(bytes), GgufError::Header { .. }), "{count} at {at}");
        }
    }
}

#[test]
fn an_unsupported_architecture_is_named_with_those_that_are() {
    let bytes = tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1);
    let at = find(&bytes, b"general.architecture") + 20 + 4 + 8;
    let mut other = bytes.clone();
    other[at..at + 5].copy_from_slice(b"mamba");
    let error = load(other).unwrap_err();
    assert!(matches!(&error, LoadError::Config(ConfigError::Architecture { found }) if found == "mamba"));
    assert!(error.to_string().contains("llama, qwen2, qwen3"), "{error}");
}

#[test]
fn b17_a_missing_tensor_and_one_without_a_place_are_refused_by_name() {
    let bytes = tiny::bytes(&tiny::qwen2(), Scheme::Q8_0, 1);
    let at = find(&bytes, b"blk.1.attn_k.bias");
    let mut renamed = bytes.clone();
    renamed[at..at + 17].copy_from_slice(b"blk.1.attn_z.bias");
    let error = load(renamed).unwrap_err();
    assert!(matches!(&error, LoadError::UnusedTensor { tensor } if tensor == "blk.1.attn_z.bias"), "{error}");
    let at = find(&bytes, b"blk.1.attn_k.weight");
    let mut renamed = bytes.clone();
    renamed[at..at + 19].copy_from_slice(b"blk.1.attn_z.weight");
    let error = load(renamed).unwrap_err();
    assert!(matches!(&error, LoadError::MissingTensor { tensor } if tensor == "blk.1.attn_k.weight"), "{error}");
}

#[test]
fn b17_b23_bias_tying_epsilon_base_and_widths_come_from_the_file() {
    let llama = load(tiny::bytes(&tiny::llama(), Scheme::Q8_0, 1)).unwrap();
    assert!(llama.layers.iter().all(|l| l.bq.is_none() && l.q_norm.is_none()));
    assert!(std::sync::Arc::ptr_eq(&llama.embed, &llama.head), "a tied head is the embedding");
    assert_eq!((llama.config.eps, llama.config.rope.base, llama.config.inter), (1e-5, 1e4, 96));
    let qwen2 = load(tiny::bytes(&tiny::qwen2(), Scheme::Q8_0, 1)).unwrap();
    assert!(qwen2.layers.iter().all(|l| l.bq.is_some() && l.bk.is_some() && l.bv.is_some()));
    assert_eq!((qwen2.config.eps, qwen2.config.rope.base), (1e-6, 1e6));
    let untied = load(tiny::bytes(&tiny::llama3(), Scheme::Q8_0, 1)).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&untied.embed, &untied.head));
    let qwen3 = load(tiny::bytes(&tiny::qwen3(), Scheme::Q8_0, 1)).unwrap();
    assert!(qwen3.layers.iter().all(|l| l.q_norm.is_some() && l.k_norm.is_some()));
    assert_eq!((qwen3.config.head_dim, qwen3.config.q_width(), qwen3.config.hidden), (32, 128, 64));
}

#[test]
fn a_file_that_does_not_exist_or_is_a_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no.gguf");
    assert!(Gguf::open(&missing).unwrap_err().to_string().contains("no.gguf"));
    assert!(matches!(Gguf::open(folder.path()), Err(GgufError::Open { .. })));
    let empty = folder.path().join("empty.gguf");
    std::fs::File::create(&empty).unwrap();
    assert!(matches!(Gguf::open(&empty), Err(GgufError::TooShort { bytes: 0 })));
}
