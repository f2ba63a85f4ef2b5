//! Synthetic models: complete files that load, answer, and are the same for the same seed.

mod tiny;

use std::ops::ControlFlow;

use engine::Engine;
use engine::chat_template::Message;
use engine::generate::{Event, GenerateRequest, LoadOptions, SamplingParams};
use engine::gguf::Gguf;
use engine::info::ModelInfo;
use engine::synth::{Scheme, Shape, SynthError, SynthOptions, shapes, write_file};
use engine::tokenizer::{Specials, Tokenizer};
use harness_spec::DType;

fn options(scheme: Scheme) -> SynthOptions {
    SynthOptions { scheme, layers: Some(1), seed: 1 }
}

#[test]
fn every_scheme_makes_a_file_that_loads_and_whose_logits_are_finite_and_spread() {
    for scheme in Scheme::ALL {
        let gguf = tiny::gguf(&tiny::llama(), scheme, 9);
        let mut engine = Engine::from_gguf(&gguf, &LoadOptions::default()).unwrap();
        let logits = engine.feed(&[1, 2, 3, 4], 0).unwrap();
        let max = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
        let min = logits.iter().fold(f32::INFINITY, |m, &x| m.min(x));
        assert!(logits.iter().all(|x| x.is_finite()), "{}", scheme.name());
        assert!((1.0..100.0).contains(&(max - min)), "{}: {min} to {max}", scheme.name());
    }
}

#[test]
fn every_real_shape_makes_a_file_with_its_own_tokenizer_and_template() {
    let folder = tempfile::tempdir().unwrap();
    // One layer of each; the two largest vocabularies times the widest rows are left to the release tool.
    for shape in shapes().into_iter().filter(|shape| shape.hidden * shape.vocab < 100_000_000) {
        let path = folder.path().join("model.gguf");
        let mut heard = (0, 0);
        let bytes =
            write_file(&path, &shape, &options(Scheme::Q4_0), &mut |done, total| heard = (done, total)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
        assert!(heard.0 > 0 && heard.1 == bytes, "{heard:?}");
        let info = ModelInfo::read(&path).unwrap();
        assert_eq!(info.config.architecture.name(), shape.architecture);
        assert_eq!(
            (info.config.hidden, info.config.inter, info.config.vocab),
            (shape.hidden, shape.inter, shape.vocab)
        );
        assert_eq!((info.config.n_heads, info.config.n_kv_heads), (shape.n_heads, shape.n_kv_heads));
        assert_eq!((info.config.eps, info.config.rope.base), (shape.eps, shape.rope_base));
        assert_eq!((info.config.layers, info.quantization.as_str()), (1, "Q4_0"));

        let mut engine = Engine::load(&path, &LoadOptions { context: Some(64), ..LoadOptions::default() }).unwrap();
        let template = engine.chat_template().expect("there is a template").clone();
        let prompt = template.render(&[Message::new("user", "Hi there")]).unwrap();
        let request = GenerateRequest {
            prompt: engine.tokenizer().encode_prompt(&prompt),
            max_tokens: 3,
            sampling: SamplingParams::greedy(),
            stop: Vec::new(),
            ignore_eos: true,
        };
        let mut tokens = 0;
        let finish = engine.generate(&request, &mut |event| {
            tokens += usize::from(matches!(event, Event::Token { .. }));
            ControlFlow::Continue(())
        });
        assert_eq!((tokens, finish.unwrap().generated), (3, 3), "{}", shape.name);
    }
}

#[test]
fn the_vocabulary_round_trips_any_text_and_uses_its_merges() {
    for shape in [tiny::llama(), tiny::llama3(), tiny::qwen2()] {
        let tokenizer = Tokenizer::from_gguf(&tiny::gguf(&shape, Scheme::Q8_0, 1)).unwrap();
        for text in ["", "the time and the tide", "日本語 🦙\r\n\t x", "<|im_end|>", "\u{0}\u{7f}"] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text, Specials::Text)), text);
        }
        let the = tokenizer.encode(" the", Specials::Text);
        assert_eq!(the.len(), 1, "{}", shape.name);
        assert_eq!(tokenizer.token_text(the[0]), " the");
        assert!(tokenizer.eos().is_some_and(|eos| tokenizer.stop_ids().contains(&eos)));
    }
}

#[test]
fn the_same_seed_makes_the_same_file_and_another_seed_another() {
    let make = |seed| tiny::bytes(&tiny::qwen3(), Scheme::Q4KM, seed);
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
}

#[test]
fn four_bit_files_have_the_head_that_real_ones_have() {
    let types = |shape: &Shape, scheme| {
        let gguf = tiny::gguf(shape, scheme, 1);
        let of = |name: &str| gguf.tensor(name).map(|info| info.dtype);
        (of("token_embd.weight"), of("output.weight"), of("blk.0.attn_q.weight"))
    };
    let wide = Shape { hidden: 256, ..tiny::llama() };
    let untied = Shape { tied_head: false, ..wide.clone() };
    assert_eq!(types(&wide, Scheme::Q4_0), (Some(DType::Q6K), None, Some(DType::Q4_0)));
    assert_eq!(types(&untied, Scheme::Q4_0), (Some(DType::Q4_0), Some(DType::Q6K), Some(DType::Q4_0)));
    assert_eq!(types(&tiny::llama(), Scheme::Q4_0), (Some(DType::Q8_0), None, Some(DType::Q4_0)));
    assert_eq!(types(&wide, Scheme::TQ2_0), (Some(DType::Q6K), None, Some(DType::TQ2_0)));
    assert_eq!(types(&tiny::llama(), Scheme::Q4K), (Some(DType::Q8_0), None, Some(DType::Q5_0)));
}

#[test]
fn bytes_per_token_are_those_of_the_tensors_that_a_token_reads() {
    let untied = Shape { tied_head: false, ..tiny::llama() };
    let gguf = Gguf::from_bytes(tiny::bytes(&untied, Scheme::Q8_0, 1)).unwrap();
    let info = ModelInfo::from_gguf(&gguf).unwrap();
    let all: u64 = gguf.tensors().map(|(_, t)| t.span.len() as u64).sum();
    let embed = gguf.tensor("token_embd.weight").unwrap();
    let looked_up = (embed.span.len() - embed.span.len() / 288) as u64;
    assert_eq!(info.weight_bytes_per_token().0, all - looked_up, "one row of an embedding that is not the head");
    let tied = ModelInfo::from_gguf(&tiny::gguf(&tiny::llama(), Scheme::Q8_0, 1)).unwrap();
    assert_eq!(tied.weights.tensors.values().map(|t| t.bytes).sum::<u64>(), tied.weight_bytes_per_token().0);
    assert_eq!(tied.kv_bytes_per_position(engine::generate::KvType::F16).0, 2 * 2 * 2 * 16 * 2);
}

#[test]
fn an_impossible_shape_or_place_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let refuse =
        |shape: Shape| write_file(&path, &shape, &options(Scheme::Q8_0), &mut |_, _| {}).unwrap_err().to_string();
    assert!(refuse(Shape { n_kv_heads: 3, ..tiny::llama() }).contains("cannot share"));
    assert!(refuse(Shape { vocab: 100, ..tiny::llama() }).contains("at least"));
    assert!(refuse(Shape { architecture: "bitnet".into(), ..tiny::llama() }).contains("`bitnet`"));
    assert!(refuse(Shape { hidden: 0, ..tiny::llama() }).contains("zero"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("no/such/folder/model.gguf");
    let error = write_file(&nowhere, &tiny::llama(), &options(Scheme::Q8_0), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, SynthError::Create { .. }) && error.to_string().contains("no/such/folder"), "{error}");
}

#[test]
fn a_shape_file_is_read_and_a_wrong_one_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let name = path.to_str().unwrap();
    let good = std::fs::read_to_string("../suites/models/qwen3-0.6b.toml").unwrap();
    std::fs::write(&path, good.replace("qwen3-0.6b", "mine")).unwrap();
    assert_eq!(Shape::find(name).unwrap().name, "mine");
    std::fs::write(&path, good.replace("inter = 3072\n", "")).unwrap();
    let error = Shape::find(name).unwrap_err().to_string();
    assert!(error.contains("inter") && error.contains("mine.toml"), "{error}");
    assert!(matches!(Shape::find("/no/such.toml"), Err(SynthError::Read { .. })));
}
