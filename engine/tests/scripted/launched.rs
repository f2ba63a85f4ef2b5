//! What a model says that it launches, by which tables are told apart.

use engine::Engine;
use engine::cuda::vram::PREFILL_TOKENS;
use engine::launched::Launched;

use super::*;

/// Two chunks, and five tokens that are taken one by one: the first of a longer class of lengths than all before.
const TWO_CHUNKS_AND_FIVE: usize = 2 * PREFILL_TOKENS + 5;

/// What a model launches by a table for prompts of so many tokens.
fn launched<const N: usize>(tokens: [usize; N], table: TableChoice, precision: Precision) -> [Launched; N] {
    let options = LoadOptions { table, context: Some(1100), ..on_gpu(precision, KvType::F16) };
    let shape = Shape { context: 1100, ..wide(tiny::llama()) };
    let engine = Engine::from_gguf(&tiny::gguf(&shape, Scheme::Q4_0, 5), &options).unwrap();
    tokens.map(|tokens| engine.launched(tokens).unwrap())
}

#[test]
fn a_row_changes_the_launches_of_the_stage_that_it_is_of_and_of_no_other() {
    if !inside("launched::a_row_changes_the_launches_of_the_stage_that_it_is_of_and_of_no_other", &[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let all = |table| launched([40, 60, TWO_CHUNKS_AND_FIVE], table, Precision::Fast);
    let [by_default, longer, with_rest] = all(TableChoice::Default);
    let of = |launched: &Launched, op: &str| -> Vec<Workload> {
        let all = launched.token.iter().chain(&launched.prompt).map(|(workload, _)| workload.clone());
        all.filter(|workload| workload.op == op).collect()
    };
    let by_row = |op: &str, variant: &str| {
        let [at] = &of(&by_default, op)[..] else { panic!("{op} once in {by_default:?}") };
        let variant: VariantId = format!("{op}/{variant}@cuda").parse().unwrap();
        all(table(folder.path(), &[(at.clone(), variant)]))
    };
    // The logits of a prompt's last token are those of every token.
    let [short, _, rest] = by_row("attn_token", "cluster[MIN_KEYS=64,SPLITS=4,TILES=1,TURNS_AHEAD=4,WARPS=4]");
    assert_eq!((short.prompt == by_default.prompt, short.token == by_default.token), (true, false), "{short:?}");
    assert_ne!(rest.prompt, with_rest.prompt, "the last tokens of the prompt are taken one by one");
    let [short, long, _] = by_row("rmsnorm_half", "held[HOLD=2,THREADS=128,VEC=8]");
    assert_eq!((short.prompt == by_default.prompt, short.token == by_default.token), (false, true), "{short:?}");
    assert_eq!(long, longer, "the row is one of 40 tokens");
    assert!(by_default.prompt.iter().all(|(workload, _)| !workload.op.starts_with("norm_logits")), "{by_default:?}");
}

#[test]
fn tokens_of_a_prompt_that_are_taken_one_by_one_launch_what_a_token_does_at_their_own_positions() {
    let test = "tokens_of_a_prompt_that_are_taken_one_by_one_launch_what_a_token_does_at_their_own_positions";
    if !inside(&format!("launched::{test}"), &[]) {
        return;
    }
    // The classes of lengths that a prompt meets in the attention of a token.
    let lengths = |launched: &Launched| -> Vec<u64> {
        let of_token = launched.prompt.iter().filter(|(workload, _)| workload.op == "attn_token");
        let mut lengths: Vec<u64> = of_token.filter_map(|(workload, _)| workload.shape.get("LEN")).collect();
        lengths.dedup();
        lengths
    };
    let tokens = [7, 2 * PREFILL_TOKENS, PREFILL_TOKENS + 5, TWO_CHUNKS_AND_FIVE];
    let at_once = launched(tokens, TableChoice::Default, Precision::Fast);
    assert_eq!(at_once.each_ref().map(lengths), [vec![512], vec![], vec![512], vec![2048]]);
    let singly = launched(tokens, TableChoice::Default, Precision::Exact);
    assert_eq!(singly.each_ref().map(lengths), [vec![512], vec![512], vec![512], vec![512, 2048]]);
    assert_eq!(singly[0].prompt, singly[0].token, "a prompt of one class launches what a token of it does");
}
