//! What a model says that it launches, by which tables are told apart.

use engine::Engine;
use engine::launched::Launched;

use super::*;

/// What a model launches by a table for prompts of 40 tokens, and then of 60.
fn launched(table: TableChoice, shape: &Shape) -> [Launched; 2] {
    let options = LoadOptions { table, context: Some(128), ..on_gpu(Precision::Fast, KvType::F16) };
    let engine = Engine::from_gguf(&tiny::gguf(shape, Scheme::Q4_0, 5), &options).unwrap();
    [40, 60].map(|tokens| engine.launched(tokens).unwrap())
}

#[test]
fn a_row_changes_the_launches_of_the_stage_that_it_is_of_and_of_no_other() {
    if !inside("launched::a_row_changes_the_launches_of_the_stage_that_it_is_of_and_of_no_other", &[]) {
        return;
    }
    let shape = wide(tiny::llama());
    let folder = tempfile::tempdir().unwrap();
    let [by_default, longer] = launched(TableChoice::Default, &shape);
    let of = |launched: &Launched, op: &str| -> Vec<Workload> {
        let all = launched.token.iter().chain(&launched.prompt).map(|(workload, _)| workload.clone());
        all.filter(|workload| workload.op == op).collect()
    };
    let by_row = |op: &str, variant: &str| {
        let [at] = &of(&by_default, op)[..] else { panic!("{op} once in {by_default:?}") };
        let variant: VariantId = format!("{op}/{variant}@cuda").parse().unwrap();
        launched(table(folder.path(), &[(at.clone(), variant)]), &shape)
    };
    // The logits of a prompt's last token are those of every token.
    let [short, _] = by_row("attn_token", "cluster[MIN_KEYS=64,SPLITS=4,TILES=1,TURNS_AHEAD=4,WARPS=4]");
    assert_eq!((short.prompt == by_default.prompt, short.token == by_default.token), (true, false), "{short:?}");
    let [short, long] = by_row("rmsnorm_half", "held[HOLD=2,THREADS=128,VEC=8]");
    assert_eq!((short.prompt == by_default.prompt, short.token == by_default.token), (false, true), "{short:?}");
    assert_eq!(long, longer, "the row is one of 40 tokens");
    assert!(by_default.prompt.iter().all(|(workload, _)| !workload.op.starts_with("norm_logits")), "{by_default:?}");
}
