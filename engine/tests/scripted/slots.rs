//! Answers that take turns on one model: each has a state, a ring and graphs of its own, and a token costs what it costs alone.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use engine::Engine;
use engine::generate::{Event, GenerateRequest};

use super::*;

const CONTEXT: usize = 1000;

fn engine(slots: usize) -> (Engine, Shape) {
    let shape = Shape { context: CONTEXT, ..wide(tiny::llama()) };
    let slots = NonZeroUsize::new(slots).unwrap();
    let options = LoadOptions { slots, context: Some(CONTEXT), ..on_gpu(Precision::Fast, KvType::F16) };
    (Engine::from_gguf(&tiny::gguf(&shape, Scheme::Q4_0, 5), &options).unwrap(), shape)
}

fn request(shape: &Shape, prompt: usize, max_tokens: usize, sampling: SamplingParams) -> GenerateRequest {
    GenerateRequest {
        prompt: super::super::ids(shape, prompt),
        max_tokens,
        sampling,
        stop: Vec::new(),
        ignore_eos: true,
    }
}

fn drawn() -> SamplingParams {
    SamplingParams { seed: Some(1), ..SamplingParams::default() }
}

/// A turn of a slot, and whether it was the last.
fn turn(engine: &mut Engine, slot: usize, ids: &mut Vec<u32>) -> bool {
    let turned = engine.turn(slot, &mut |event| {
        if let Event::Token { id, .. } = event {
            ids.push(id);
        }
        ControlFlow::Continue(())
    });
    turned.unwrap().is_some()
}

#[test]
fn tokens_of_answers_that_take_turns_are_those_behind_their_own_positions_and_cost_one_graph_and_four_bytes_each() {
    let test =
        "tokens_of_answers_that_take_turns_are_those_behind_their_own_positions_and_cost_one_graph_and_four_bytes_each";
    if !inside(&format!("slots::{test}"), &[]) {
        return;
    }
    const TOKENS: usize = 90;
    let (mut engine, shape) = engine(4);
    // Two chunks, one, and a few tokens one by one; the last goes to the end of the context.
    let prompts = [600, 40, 7, CONTEXT - TOKENS];
    let ways = [SamplingParams::greedy(), drawn(), drawn(), SamplingParams::greedy()];
    for (slot, (&prompt, way)) in prompts.iter().zip(ways).enumerate() {
        engine.begin(slot, &request(&shape, prompt, TOKENS, way)).unwrap();
    }
    let mut all = [const { Vec::new() }; 4];
    // The first token of each answer is behind its prompt's last chunk.
    for (slot, ids) in all.iter_mut().enumerate().rev() {
        while ids.is_empty() {
            assert!(!turn(&mut engine, slot, ids));
        }
    }
    let before = engine.counters().unwrap();
    for round in 0..TOKENS - 2 {
        for slot in [2, 0, 3, 1] {
            assert!(!turn(&mut engine, slot, &mut all[slot]), "slot {slot} in round {round}");
        }
    }
    let after = engine.counters().unwrap();
    let tokens = 4 * (TOKENS as u64 - 2);
    let count = |of: fn(&Counters) -> u64| of(&after) - of(&before);
    // What the last turn of each has not queued was queued by the first.
    assert_eq!([count(|c| c.tokens), count(|c| c.graph_launches)], [tokens; 2]);
    assert_eq!(count(|c| c.d2h_bytes), 4 * tokens);
    assert_eq!([count(|c| c.kernel_launches), count(|c| c.syncs), count(|c| c.h2d_bytes)], [0; 3]);
    for (slot, (&prompt, ids)) in prompts.iter().zip(&mut all).enumerate() {
        assert!(turn(&mut engine, slot, ids));
        let want: Vec<u32> = (0..TOKENS).map(|i| behind(prompt - 1 + i, &shape)).collect();
        assert_eq!(*ids, want, "slot {slot}");
    }
}

#[test]
fn a_slot_whose_answer_was_broken_off_is_free_and_every_slot_has_keys_and_values_of_its_own() {
    let test = "a_slot_whose_answer_was_broken_off_is_free_and_every_slot_has_keys_and_values_of_its_own";
    if !inside(&format!("slots::{test}"), &[]) {
        return;
    }
    let (mut two, shape) = engine(2);
    let one = engine(1).0;
    let kv = two.info().kv_bytes_per_position(KvType::F16).0 * CONTEXT as u64;
    assert_eq!(two.cuda().unwrap().vram(), one.cuda().unwrap().vram() + kv);
    let [mut long, mut short] = [const { Vec::new() }; 2];
    two.begin(0, &request(&shape, 30, 60, drawn())).unwrap();
    // Broken off within the prompt, and with a step queued behind the last token, in both ways to choose.
    for (turns, way) in [(1usize, drawn()), (4, SamplingParams::greedy()), (6, drawn()), (3, SamplingParams::greedy())]
    {
        two.begin(1, &request(&shape, 700, 50, way)).unwrap();
        for _ in 0..turns {
            assert!(!turn(&mut two, 1, &mut Vec::new()));
            assert!(!turn(&mut two, 0, &mut long));
        }
        assert_eq!(two.cancel(1).generated, turns - 1);
    }
    two.begin(1, &request(&shape, 20, 10, SamplingParams::greedy())).unwrap();
    while !turn(&mut two, 1, &mut short) {}
    while !turn(&mut two, 0, &mut long) {}
    let want = |prompt: usize, count: usize| (0..count).map(|i| behind(prompt - 1 + i, &shape)).collect::<Vec<_>>();
    assert_eq!((short, long), (want(20, 10), want(30, 60)));
}
