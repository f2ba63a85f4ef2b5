//! Requests: their events, how they end, what they refuse. On tiny random models, so the text is noise.

mod tiny;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use engine::Engine;
use engine::generate::{
    Event, Finish, FinishReason, GenerateError, GenerateRequest, LoadOptions, SamplingParams, TableChoice,
};
use engine::model::LoadError;
use engine::synth::Scheme;
use kernels::cpu::Precision;
use variants::Isa;

fn engine() -> Engine {
    load(&LoadOptions { context: Some(64), threads: Some(2), ..LoadOptions::default() }).unwrap()
}

fn load(options: &LoadOptions) -> Result<Engine, LoadError> {
    Engine::from_gguf(&tiny::gguf(&tiny::llama3(), Scheme::Q8_0, 23), options)
}

fn request(max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: vec![5, 6, 7, 8],
        max_tokens,
        sampling: SamplingParams { seed: Some(3), temperature: 1.0, ..SamplingParams::greedy() },
        stop: Vec::new(),
        ignore_eos: true,
    }
}

struct Heard {
    ids: Vec<u32>,
    texts: Vec<String>,
    prefilled: usize,
    finished: Vec<Finish>,
}

fn run(engine: &mut Engine, request: &GenerateRequest) -> (Finish, Heard) {
    run_until(engine, request, usize::MAX)
}

/// Runs a request and breaks off at its `limit`-th token.
fn run_until(engine: &mut Engine, request: &GenerateRequest, limit: usize) -> (Finish, Heard) {
    let mut heard = Heard { ids: Vec::new(), texts: Vec::new(), prefilled: 0, finished: Vec::new() };
    let finish = engine
        .generate(request, &mut |event| {
            match event {
                Event::Prefilled { prompt_tokens, cached_tokens, .. } => {
                    assert_eq!((prompt_tokens, cached_tokens), (request.prompt.len(), 0));
                    assert!(heard.ids.is_empty(), "the prompt comes first");
                    heard.prefilled += 1;
                }
                Event::Token { id, text } => {
                    heard.ids.push(id);
                    heard.texts.push(text.to_owned());
                }
                Event::Finished(finish) => heard.finished.push(finish),
            }
            if heard.ids.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(heard.prefilled, 1);
    assert_eq!(heard.finished, [finish], "exactly one end, and it is the one returned");
    assert_eq!(finish.generated, heard.ids.len());
    assert_eq!(finish.prompt_tokens, request.prompt.len());
    (finish, heard)
}

#[test]
fn a_request_gives_one_event_for_each_token_and_ends_at_its_length() {
    let mut engine = engine();
    let (finish, heard) = run(&mut engine, &request(20));
    assert_eq!(finish.reason, FinishReason::Length);
    assert_eq!(heard.ids.len(), 20);
    assert_eq!(heard.texts.concat(), engine.tokenizer().decode(&heard.ids));
}

#[test]
fn the_same_request_gives_the_same_tokens_whatever_came_before() {
    let mut engine = engine();
    let first = run(&mut engine, &request(20)).1.ids;
    let other = GenerateRequest { prompt: (0..40).collect(), ..request(10) };
    run(&mut engine, &other);
    assert_eq!(run(&mut engine, &request(20)).1.ids, first);
    let reseeded = SamplingParams { seed: Some(4), ..request(20).sampling };
    assert_ne!(run(&mut engine, &GenerateRequest { sampling: reseeded, ..request(20) }).1.ids, first);
}

#[test]
fn thread_count_does_not_change_greedy_tokens() {
    let greedy = GenerateRequest { sampling: SamplingParams::greedy(), ..request(24) };
    let tokens = |threads| {
        let options = LoadOptions { context: Some(64), threads: Some(threads), ..LoadOptions::default() };
        run(&mut load(&options).unwrap(), &greedy).1.ids
    };
    assert_eq!(tokens(1), tokens(3));
}

#[test]
fn generation_ends_where_the_context_is_full() {
    let mut engine = engine();
    let (finish, _) = run(&mut engine, &request(1000));
    assert_eq!((finish.reason, finish.generated), (FinishReason::Length, 60));
    let longest = GenerateRequest { prompt: vec![1; 63], ..request(5) };
    assert_eq!(run(&mut engine, &longest).0.generated, 1);
}

#[test]
fn no_tokens_asked_for_is_a_prefill_alone() {
    let (finish, heard) = run(&mut engine(), &request(0));
    assert_eq!((finish.reason, heard.ids.len()), (FinishReason::Length, 0));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let mut engine = engine();
    let (_, free) = run(&mut engine, &request(30));
    let text = free.texts.concat();
    // A stop string that begins inside one token and ends in a later one.
    let start = text.char_indices().nth(9).unwrap().0;
    let end = text.char_indices().nth(16).unwrap().0;
    let stop = text[start..end].to_owned();
    let stopping = GenerateRequest { stop: vec!["never seen".into(), stop.clone()], ..request(30) };
    let (finish, heard) = run(&mut engine, &stopping);
    assert_eq!(finish.reason, FinishReason::Stop);
    assert_eq!(heard.texts.concat(), text[..text.find(&stop).unwrap()]);
    assert!(finish.generated < 30);
    assert_eq!(heard.ids, free.ids[..heard.ids.len()], "looking for a stop string changes no token");
}

#[test]
fn an_end_token_stops_and_is_not_shown_unless_it_is_to_be_ignored() {
    let mut engine = engine();
    // All tokens are about equally likely at this temperature, so that an end token comes soon.
    let sampling = SamplingParams { temperature: 50.0, seed: Some(1), ..SamplingParams::greedy() };
    let mut ended = 0;
    for seed in 0..40 {
        let sampling = SamplingParams { seed: Some(seed), ..sampling.clone() };
        let (finish, heard) =
            run(&mut engine, &GenerateRequest { sampling: sampling.clone(), ignore_eos: false, ..request(60) });
        let stops: Vec<usize> =
            (0..heard.ids.len()).filter(|&i| engine.tokenizer().stop_ids().contains(&heard.ids[i])).collect();
        match finish.reason {
            FinishReason::Stop => {
                ended += 1;
                assert_eq!(stops, [heard.ids.len() - 1]);
                assert!(!heard.texts.concat().contains("<|"), "control tokens have no text");
                let on = run(&mut engine, &GenerateRequest { sampling, ignore_eos: true, ..request(60) });
                assert_eq!((on.0.reason, on.0.generated), (FinishReason::Length, 60));
                assert_eq!(on.1.ids[..heard.ids.len()], heard.ids);
            }
            reason => assert_eq!((reason, stops.len()), (FinishReason::Length, 0)),
        }
    }
    assert!(ended > 0, "some of forty requests meet an end token");
}

#[test]
fn breaking_off_ends_at_once_and_leaves_the_engine_usable() {
    let mut engine = engine();
    let (finish, heard) = run_until(&mut engine, &request(50), 3);
    assert_eq!((finish.reason, heard.ids.len()), (FinishReason::Cancelled, 3));
    let (finish, heard) = run_until(&mut engine, &request(50), 0);
    assert_eq!((finish.reason, heard.ids.len()), (FinishReason::Cancelled, 0));
    assert_eq!(run(&mut engine, &request(5)).0.generated, 5);
}

#[test]
fn a_long_prompt_can_be_given_up_between_its_batches() {
    let mut engine = load(&LoadOptions::default()).unwrap();
    let long = GenerateRequest { prompt: (0..500).map(|i| i % 288).collect(), ..request(3) };
    let asked = std::cell::Cell::new(0);
    let given_up = || asked.replace(asked.get() + 1) == 2;
    let mut events = 0;
    let finish = engine.generate_unless(&long, &given_up, &mut |event| {
        assert!(matches!(event, Event::Finished(_)), "the prompt was not finished: {event:?}");
        events += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((finish.unwrap().reason, asked.get(), events), (FinishReason::Cancelled, 3, 1));
    assert_eq!(run(&mut engine, &long).1.ids, run(&mut load(&LoadOptions::default()).unwrap(), &long).1.ids);
}

#[test]
fn requests_that_cannot_be_answered_are_refused_before_any_event() {
    let mut engine = engine();
    let mut refuse = |request: GenerateRequest| {
        engine.generate(&request, &mut |event| panic!("no event was due: {event:?}")).unwrap_err()
    };
    assert_eq!(refuse(GenerateRequest { prompt: vec![], ..request(5) }), GenerateError::EmptyPrompt);
    let long = refuse(GenerateRequest { prompt: vec![1; 64], ..request(5) });
    assert_eq!(long, GenerateError::PromptTooLong { tokens: 64, context: 64 });
    assert!(long.to_string().contains("64") && long.to_string().contains("hint"));
    let unknown = refuse(GenerateRequest { prompt: vec![1, 288], ..request(5) });
    assert_eq!(unknown, GenerateError::UnknownToken { id: 288, vocab: 288 });
    let sampling = SamplingParams { temperature: -1.0, ..SamplingParams::greedy() };
    assert!(matches!(refuse(GenerateRequest { sampling, ..request(5) }), GenerateError::Sampling(_)));
}

#[test]
fn every_chunk_is_whole_characters_and_the_whole_is_the_text_of_the_tokens() {
    let mut engine = engine();
    // Byte tokens above 127 are half of this vocabulary, so that broken characters abound.
    for seed in 0..20 {
        let sampling = SamplingParams { temperature: 30.0, seed: Some(seed), ..SamplingParams::greedy() };
        let (_, heard) = run(&mut engine, &GenerateRequest { sampling, ..request(40) });
        assert_eq!(heard.texts.concat(), engine.tokenizer().decode(&heard.ids));
    }
}

#[test]
fn e18_an_instruction_set_can_be_forced_and_one_that_is_absent_is_an_error() {
    for isa in Isa::available() {
        let options = LoadOptions { isa: Some(isa), ..LoadOptions::default() };
        assert_eq!(load(&options).unwrap().cpu().unwrap().isa(), isa);
    }
    match Isa::ALL.into_iter().find(|&isa| !Isa::detect().runs(isa)) {
        Some(absent) => {
            let options = LoadOptions { isa: Some(absent), ..LoadOptions::default() };
            assert!(matches!(load(&options), Err(LoadError::Isa { asked, .. }) if asked == absent));
        }
        None => println!("this machine has every instruction set, so none is absent"),
    }
}

#[test]
fn every_backend_answers_with_the_same_greedy_tokens_in_exact_arithmetic() {
    let greedy = GenerateRequest { sampling: SamplingParams::greedy(), ..request(16) };
    let mut all = Vec::new();
    for isa in Isa::available() {
        for table in [TableChoice::Default, TableChoice::Baseline] {
            let options = LoadOptions { isa: Some(isa), table, precision: Precision::Exact, ..LoadOptions::default() };
            all.push(run(&mut load(&options).unwrap(), &greedy).1.ids);
        }
    }
    assert!(all.iter().all(|ids| *ids == all[0]));
}

#[test]
fn load_options_that_make_no_sense_are_refused() {
    let with = |options| load(&options).unwrap_err();
    assert!(matches!(with(LoadOptions { threads: Some(0), ..LoadOptions::default() }), LoadError::NoThreads));
    for asked in [0, 1, 513] {
        let error = with(LoadOptions { context: Some(asked), ..LoadOptions::default() });
        assert!(matches!(error, LoadError::Context { most: 512, .. }));
        assert!(error.to_string().contains("512"), "{error}");
    }
    assert_eq!(load(&LoadOptions::default()).unwrap().context(), 512, "the model's own context where it is small");
}

fn side_by_side(slots: usize) -> Engine {
    let slots = NonZeroUsize::new(slots).unwrap();
    load(&LoadOptions { threads: Some(2), slots, ..LoadOptions::default() }).unwrap()
}

/// A turn of a slot: the tokens that it brings are added, and its end is answered.
fn turn(engine: &mut Engine, slot: usize, ids: &mut Vec<u32>) -> Option<Finish> {
    let turned = engine.turn(slot, &mut |event| {
        if let Event::Token { id, .. } = event {
            ids.push(id);
        }
        ControlFlow::Continue(())
    });
    turned.unwrap()
}

/// The tokens of several answers that take turns.
fn in_turns<const N: usize>(engine: &mut Engine, requests: [&GenerateRequest; N]) -> [Vec<u32>; N] {
    let mut all = [const { Vec::new() }; N];
    let mut left = [true; N];
    requests.iter().enumerate().for_each(|(slot, request)| engine.begin(slot, request).unwrap());
    while left.contains(&true) {
        for slot in (0..N).filter(|&slot| left[slot]).collect::<Vec<_>>() {
            left[slot] = turn(engine, slot, &mut all[slot]).is_none();
        }
    }
    all
}

#[test]
fn answers_that_take_turns_have_the_tokens_that_each_has_alone() {
    // Three batches, some of one, and a few tokens; two that draw, of which each has numbers of its own, and one that does not.
    let long = GenerateRequest { prompt: (0..300).map(|i| i * 7 % 288).collect(), ..request(30) };
    let penalised = SamplingParams { seed: Some(9), ..SamplingParams::default() };
    let drawn = GenerateRequest { prompt: (0..40).collect(), sampling: penalised, ..request(40) };
    let greedy = GenerateRequest { sampling: SamplingParams::greedy(), ..request(25) };
    let mut engine = side_by_side(3);
    let alone = [&long, &drawn, &greedy].map(|request| run(&mut engine, request).1.ids);
    assert_eq!(alone.each_ref().map(Vec::len), [30, 40, 25]);
    assert_eq!(in_turns(&mut engine, [&long, &drawn, &greedy]), alone);
    assert_eq!(in_turns(&mut side_by_side(2), [&drawn, &drawn]), [alone[1].clone(), alone[1].clone()]);
}

#[test]
fn a_turn_is_a_batch_of_the_prompt_or_a_token() {
    let mut engine = side_by_side(2);
    engine.begin(1, &GenerateRequest { prompt: vec![1; 300], ..request(2) }).unwrap();
    let mut ids = Vec::new();
    let turns: Vec<_> = (0..4).map(|_| (turn(&mut engine, 1, &mut ids).map(|f| f.reason), ids.len())).collect();
    assert_eq!(turns, [(None, 0), (None, 0), (None, 1), (Some(FinishReason::Length), 2)]);
}

#[test]
fn a_slot_is_free_again_after_an_answer_was_ended_and_the_others_go_on() {
    let mut engine = side_by_side(2);
    let (one, other) = (request(20), GenerateRequest { prompt: (0..150).collect(), ..request(20) });
    let alone = run(&mut engine, &one).1.ids;
    engine.begin(0, &one).unwrap();
    let mut ids = Vec::new();
    // Within the prompt, and behind some tokens.
    for turns in [1usize, 5] {
        engine.begin(1, &other).unwrap();
        for _ in 0..turns {
            assert_eq!(turn(&mut engine, 1, &mut Vec::new()), None);
            assert_eq!(turn(&mut engine, 0, &mut ids), None);
        }
        let finish = engine.cancel(1);
        assert_eq!((finish.reason, finish.prompt_tokens), (FinishReason::Cancelled, 150));
        assert_eq!(finish.generated, turns - 1);
    }
    while turn(&mut engine, 0, &mut ids).is_none() {}
    assert_eq!(ids, alone);
    engine.begin(1, &one).unwrap();
    let mut again = Vec::new();
    while turn(&mut engine, 1, &mut again).is_none() {}
    assert_eq!(again, alone);
    let refused = engine.begin(1, &GenerateRequest { prompt: vec![], ..one }).unwrap_err();
    assert_eq!(refused, GenerateError::EmptyPrompt);
}
