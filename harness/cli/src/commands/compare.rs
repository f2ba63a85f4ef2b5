use anyhow::anyhow;
use harness_spec::record::{Headline, ManifestStatus, Provenance, RunKind, SideRole, Verdict};
use reqwest::Url;

use super::measure::{Prepared, conclude, measure};
use super::{print_json, print_text};
use crate::ceiling::CeilingMeter;
use crate::exit::{Exit, Failure, Outcome, usage};
use crate::interrupt;
use crate::manifest;
use crate::model::{self, Model};
use crate::peers::embedded::Kernels;
use crate::peers::prepare::{self, Setting};
use crate::peers::{self, ollama::OllamaClient};
use crate::plan::{ComparePlan, RunPlan, Target, default_ollama};
use crate::quality::EngineJudge;
use crate::record::Identity;

/// `bench compare`.
pub async fn run(plan: &ComparePlan, json: bool, command: Vec<String>) -> Outcome {
    let cancel = interrupt::on_signal().map_err(anyhow::Error::new)?;
    if plan.run.dry_run {
        model::check_path(&plan.run.model)?;
        return dry_run(plan, json);
    }
    plan.run.check_device()?;
    let (peer, said) = choose_peer(plan).await?;
    eprintln!("{said}");
    let identity = Identity::new(&plan.run)?;
    let model = model::open(&plan.run.model, plan.run.context, plan.run.kv).await?;
    let run = &plan.run.filled(&model)?;
    fits(run, &model)?;
    let broken = super::measure::broken(run, &model, &identity).await?;

    let bar = crate::progress::wait("measuring the memory ceiling");
    let mut ceiling = CeilingMeter::new(model.facts().weight_bytes_per_token, run.device, run.threads);
    ceiling.measure("before")?;
    bar.finish_and_clear();

    let setting = Setting {
        model: &model,
        suite: &run.suite,
        context: run.context,
        device: run.device,
        kv: run.kv,
        threads: run.threads,
        timeout: run.timeout,
        out: &identity.folder,
    };
    let ready = async {
        let peer = match &peer {
            Target::Ollama(url) => prepare::ollama(&setting, SideRole::Peer, url).await?,
            Target::OpenAi(url) => prepare::openai(&setting, SideRole::Peer, url).await?,
            _ => prepare::engine(&setting, SideRole::Peer, Kernels::Plain).await?,
        };
        let engine = prepare::engine(&setting, SideRole::Engine, Kernels::Device).await?;
        anyhow::Ok(vec![engine, peer])
    };
    let mut sides = tokio::select! {
        () = cancel.cancelled() => return Err(anyhow!("interrupted before the first run; nothing was measured").into()),
        sides = ready => sides?,
    };
    peers::agree_on_stop_rule(&mut sides);

    let manifest = manifest::compare(&sides[0].shape, &sides[1].shape);
    let withhold = manifest::withhold(&manifest);
    if let (Some(why), false) = (&withhold, plan.allow_mismatch) {
        for f in manifest.iter().filter(|f| matches!(f.status, ManifestStatus::Mismatch | ManifestStatus::Unknown)) {
            eprintln!(
                "  {}: engine {}, peer {} ({})",
                f.name,
                f.engine.as_deref().unwrap_or("unknown"),
                f.peer.as_deref().unwrap_or("unknown"),
                f.how
            );
        }
        return Err(
            anyhow!("{why}\nhint: make them equal, or pass --allow-mismatch for numbers without a verdict").into()
        );
    }
    let withhold = withhold.map(|why| format!("--allow-mismatch: {why}"));
    let mut notes = vec![said];
    notes.extend(withhold.iter().map(|why| format!("no verdict, {why}")));

    let judge = EngineJudge { plan: run, model: &model, cancel: &cancel };
    let prepared = Prepared {
        kind: RunKind::Compare,
        provenance: Provenance::Measured,
        plan: run,
        model: &model,
        schedule: run.paired().map_err(usage)?,
        sides,
        manifest,
        withhold,
        notes,
        broken,
        identity: &identity,
        command,
        ceiling: Some(ceiling),
        cancel: cancel.clone(),
    };
    let measured = measure(prepared, &judge).await?;
    super::log::note_comparison(&measured.record);
    let done = if plan.fail_on_slower { judged(&measured.record.headline) } else { Exit::Done };
    conclude(&measured, &identity, json, done)
}

/// The exit code that `--fail-on-slower` asks for: what is not known to be no slower is no pass.
pub fn judged(headline: &Headline) -> Exit {
    match (&headline.blocked, headline.verdict) {
        (None, Some(Verdict::Faster | Verdict::Tie)) => Exit::Done,
        (None, Some(Verdict::Slower)) => Exit::Slower,
        _ => Exit::Inconclusive,
    }
}

/// The peer, and the line that says which it is.
async fn choose_peer(plan: &ComparePlan) -> Result<(Target, String), Failure> {
    let named = |url: &Url, what: &str| format!("peer: {what} at {url}");
    Ok(match &plan.against {
        // A peer that was asked for and is not there is known before a model is pulled or loaded.
        Target::Ollama(url) => {
            prepare::ollama_answers(url, plan.run.timeout).await?;
            (Target::Ollama(url.clone()), named(url, "Ollama"))
        }
        Target::OpenAi(url) => {
            prepare::openai_answers(url, plan.run.timeout).await?;
            (Target::OpenAi(url.clone()), named(url, "the OpenAI API"))
        }
        Target::Baseline | Target::Engine => {
            (Target::Baseline, "peer: embedded baseline (this engine on its plain kernels)".to_owned())
        }
        Target::Auto => {
            let url = default_ollama(std::env::var("OLLAMA_HOST").ok().as_deref()).map_err(usage)?;
            let client = OllamaClient::new(url.clone(), std::time::Duration::from_secs(3))?;
            match client.version().await {
                Ok(_) => (Target::Ollama(url.clone()), named(&url, "Ollama")),
                Err(_) => (
                    Target::Baseline,
                    format!(
                        "peer: embedded baseline (this engine on its plain kernels), since no Ollama answers at {url}; \
                         nothing below is about Ollama"
                    ),
                ),
            }
        }
    })
}

/// Whether every prompt with its answer fits the context.
pub(super) fn fits(plan: &RunPlan, model: &dyn Model) -> Result<(), Failure> {
    let longest = plan.lengths.iter().max().copied().unwrap_or(0);
    for p in &plan.suite.prompts {
        let need = model.render(&p.text, "00000000")?.ids.len() as u64 + longest;
        if need > u64::from(plan.context) {
            return Err(usage(anyhow!(
                "prompt `{}` with an answer of {longest} tokens needs {need} positions, the context has {}\nhint: raise --ctx",
                p.id,
                plan.context
            )));
        }
    }
    Ok(())
}

fn dry_run(plan: &ComparePlan, json: bool) -> Outcome {
    let r = &plan.run;
    let schedule = r.paired().map_err(usage)?;
    let blocks: Vec<String> = schedule
        .blocks
        .iter()
        .map(|b| format!("{}{}", if b.side == SideRole::Engine { "engine x" } else { "peer x" }, b.runs.len()))
        .collect();
    if json {
        print_json(&serde_json::json!({
            "model": r.model, "suite": r.suite.name, "lengths": r.lengths, "runs_a_side": r.runs, "warmup": r.warmup,
            "device": r.device.to_string(), "kv": r.kv.name(), "threads": r.threads, "context": r.context, "seed": r.seed,
            "blocks": blocks,
        }))?;
    } else {
        print_text(&format!(
            "model {}, suite {} ({} prompts), lengths {:?}, {} runs a side after {} warm-up, {} threads, context {}, seed {}\n\
             device {}\nblocks: {}",
            r.model,
            r.suite.name,
            r.suite.prompts.len(),
            r.lengths,
            r.runs,
            r.warmup,
            r.threads,
            r.context,
            r.seed,
            r.device,
            blocks.join(", ")
        ))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clean_win_or_tie_passes_fail_on_slower() {
        let h = |verdict, blocked: Option<&str>| Headline {
            text: String::new(),
            verdict: Some(verdict),
            blocked: blocked.map(str::to_owned),
        };
        for (headline, want) in [
            (h(Verdict::Faster, None), Exit::Done),
            (h(Verdict::Tie, None), Exit::Done),
            (h(Verdict::Slower, None), Exit::Slower),
            (h(Verdict::Inconclusive, None), Exit::Inconclusive),
            (h(Verdict::Unstable, None), Exit::Inconclusive),
            (h(Verdict::Withheld, Some("mismatch")), Exit::Inconclusive),
            (h(Verdict::Faster, Some("3 % failed")), Exit::Inconclusive),
        ] {
            assert_eq!(judged(&headline), want, "{headline:?}");
        }
    }
}
