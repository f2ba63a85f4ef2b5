//! The reader on mutated files: no panic, and no allocation above the file's size, whatever a header claims.

mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;

use engine::gguf::Gguf;
use engine::info::ModelInfo;
use engine::model::load_model;
use engine::synth::Scheme;
use engine::tokenizer::Tokenizer;
use kernels::cpu::{Cpu, CpuOptions, Precision};
use proptest::prelude::*;

/// The system's allocator, remembering the largest request of each thread.
struct Largest;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(bytes: usize) {
    // A thread that is being torn down has no counter any more, and nothing left to measure.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread-local that allocates nothing.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

/// The largest single allocation while `what` runs.
fn largest_allocation<T>(what: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let result = what();
    (result, LARGEST.get())
}

/// One change to a file.
#[derive(Clone, Debug)]
enum Mutation {
    Byte(usize, u8),
    Word(usize, u64),
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let word = prop_oneof![
        any::<u64>(),
        0u64..64,
        Just(u64::MAX),
        (0u32..64).prop_map(|shift| 1u64 << shift),
        (0u32..64).prop_map(|shift| (1u64 << shift).wrapping_sub(1)),
    ];
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        (any::<usize>(), word).prop_map(|(at, word)| Mutation::Word(at, word)),
        any::<usize>().prop_map(Mutation::Cut),
        (any::<usize>(), 1usize..40).prop_map(|(at, n)| Mutation::Remove(at, n)),
        (any::<usize>(), 1usize..40).prop_map(|(at, n)| Mutation::Repeat(at, n)),
    ]
}

/// Applies mutations to the first `header` bytes, where all structure is.
fn mutate(mut bytes: Vec<u8>, header: usize, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let place = |at: usize| at % header.min(bytes.len()).max(1);
        match *mutation {
            _ if bytes.is_empty() => break,
            Mutation::Byte(at, byte) => {
                let at = place(at);
                bytes[at] = byte;
            }
            Mutation::Word(at, word) => {
                let at = place(at);
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
            Mutation::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
            Mutation::Remove(at, n) => {
                let at = place(at);
                let end = (at + n).min(bytes.len());
                bytes.drain(at..end);
            }
            Mutation::Repeat(at, n) => {
                let at = place(at);
                let end = (at + n).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// A model and the length of its header.
fn model() -> (Vec<u8>, usize) {
    static MODEL: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    MODEL.get_or_init(make_model).clone()
}

fn make_model() -> (Vec<u8>, usize) {
    let bytes = tiny::bytes(&tiny::qwen3(), Scheme::Q4_0, 1);
    let gguf = Gguf::from_bytes(bytes.clone()).unwrap();
    let header = gguf.tensors().map(|(_, info)| info.span.start).min().unwrap();
    (bytes, header)
}

/// Reads everything that a header describes.
fn read(bytes: Vec<u8>) {
    let size = bytes.len();
    let (gguf, largest) = largest_allocation(|| Gguf::from_bytes(bytes));
    assert!(largest <= size.max(1024), "{largest} bytes at once for a file of {size}");
    let Ok(gguf) = gguf else { return };
    let (_, largest) = largest_allocation(|| {
        for (_, info) in gguf.tensors() {
            assert_eq!(gguf.data(info).len(), info.span.len());
        }
        ModelInfo::from_gguf(&gguf).is_ok()
    });
    assert!(largest <= size.max(1024), "{largest} bytes at once for the facts of a file of {size}");
    // What these build is larger than the part of the file it comes from, but they must not panic.
    let _ = Tokenizer::from_gguf(&gguf);
    let cpu = Cpu::new(CpuOptions { threads: 1, ..CpuOptions::default() });
    let _ = load_model(&gguf, &cpu, Precision::Fast);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_header_never_panics_nor_reserves_more_than_the_file(
        mutations in prop::collection::vec(mutation(), 1..5),
    ) {
        let (bytes, header) = model();
        read(mutate(bytes, header, &mutations));
    }

    #[test]
    fn the_fixed_part_of_a_header_survives_any_bytes(start in prop::collection::vec(any::<u8>(), 0..64)) {
        let (mut bytes, _) = model();
        // Magic and version stay, so that the counts are read.
        let end = (8 + start.len()).min(bytes.len());
        bytes[8..end].copy_from_slice(&start[..end - 8]);
        read(bytes);
    }

    #[test]
    fn bytes_that_are_no_file_at_all_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(Gguf::from_bytes(bytes).is_err());
    }
}

#[test]
fn the_densest_headers_take_no_more_memory_at_once_than_the_file() {
    let count = 4000u64;
    let name =
        |i: u64| [3u64.to_le_bytes().to_vec(), (0..3).map(|j| b'0' + (i >> (4 * j) & 15) as u8).collect()].concat();
    let mut keys = [&b"GGUF\x03\0\0\0"[..], &0u64.to_le_bytes(), &count.to_le_bytes()].concat();
    let mut tensors = [&b"GGUF\x03\0\0\0"[..], &count.to_le_bytes(), &0u64.to_le_bytes()].concat();
    for i in 0..count {
        // A bool under each key; a tensor of one float each, all apart.
        keys.extend([&name(i)[..], &7u32.to_le_bytes(), &[1]].concat());
        tensors.extend([&name(i)[..], &1u32.to_le_bytes(), &1u64.to_le_bytes(), &0u32.to_le_bytes()].concat());
        tensors.extend((32 * i).to_le_bytes());
    }
    tensors.resize(tensors.len().next_multiple_of(32) + 32 * count as usize, 0);
    for bytes in [keys, tensors] {
        let size = bytes.len();
        let (gguf, largest) = largest_allocation(|| Gguf::from_bytes(bytes));
        assert!(gguf.is_ok(), "{gguf:?}");
        assert!(largest <= size, "{largest} for {size}");
    }
}
