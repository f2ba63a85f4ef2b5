use anyhow::anyhow;
use harness_spec::record::{Provenance, RunKind, SideRole};

use super::compare::fits;
use super::measure::{Prepared, conclude, measure};
use super::{print_json, print_text};
use crate::ceiling::CeilingMeter;
use crate::exit::{Exit, Outcome, usage};
use crate::interrupt;
use crate::model::{self, Model};
use crate::peers::{
    self,
    embedded::Kernels,
    prepare::{self, Setting},
};
use crate::plan::{E2ePlan, Target};
use crate::quality::EngineJudge;
use crate::record::Identity;

/// `bench e2e`: one side alone, with the record kind of a comparison.
pub async fn run(plan: &E2ePlan, json: bool, command: Vec<String>) -> Outcome {
    let cancel = interrupt::on_signal().map_err(anyhow::Error::new)?;
    let role = match plan.backend {
        Target::Engine => SideRole::Engine,
        _ => SideRole::Peer,
    };
    let r = &plan.run;
    if r.dry_run {
        model::check_path(&r.model)?;
        if json {
            print_json(&serde_json::json!({
                "model": r.model, "suite": r.suite.name, "lengths": r.lengths, "runs": r.runs, "warmup": r.warmup,
                "device": r.device.to_string(), "kv": r.kv.name(), "threads": r.threads, "context": r.context,
                "seed": r.seed,
            }))?;
        } else {
            print_text(&format!(
                "model {}, suite {}, lengths {:?}, {} runs after {} warm-up, {}, {} threads, context {}, seed {}",
                r.model, r.suite.name, r.lengths, r.runs, r.warmup, r.device, r.threads, r.context, r.seed
            ))?;
        }
        return Ok(Exit::Done);
    }
    r.check_device()?;
    let identity = Identity::new(r)?;
    let model = model::open(&r.model, r.context, r.kv).await?;
    let filled = r.filled(&model)?;
    let r = &filled;
    fits(r, &model)?;
    let broken = super::measure::broken(r, &model, &identity).await?;
    let mut ceiling = CeilingMeter::new(model.facts().weight_bytes_per_token, r.device, r.threads);
    ceiling.measure("before")?;
    let setting = Setting {
        model: &model,
        suite: &r.suite,
        context: r.context,
        device: r.device,
        kv: r.kv,
        threads: r.threads,
        timeout: r.timeout,
        out: &identity.folder,
    };
    let ready = async {
        match &plan.backend {
            Target::Ollama(url) => prepare::ollama(&setting, role, url).await,
            Target::OpenAi(url) => prepare::openai(&setting, role, url).await,
            Target::Baseline => prepare::engine(&setting, role, Kernels::Plain).await,
            Target::Engine | Target::Auto => prepare::engine(&setting, role, Kernels::Device).await,
        }
    };
    let side = tokio::select! {
        () = cancel.cancelled() => return Err(anyhow!("interrupted before the first run; nothing was measured").into()),
        side = ready => side?,
    };
    let mut sides = vec![side];
    peers::agree_on_stop_rule(&mut sides);
    let said = format!("one side alone: {} at {}", sides[0].label, sides[0].endpoint);
    eprintln!("{said}");
    let judge = EngineJudge { plan: r, model: &model, cancel: &cancel };
    let prepared = Prepared {
        kind: RunKind::E2e,
        provenance: Provenance::Measured,
        plan: r,
        model: &model,
        schedule: r.one_sided(role).map_err(usage)?,
        sides,
        manifest: Vec::new(),
        withhold: None,
        notes: vec![said],
        broken,
        identity: &identity,
        command,
        ceiling: Some(ceiling),
        cancel: cancel.clone(),
    };
    let measured = measure(prepared, &judge).await?;
    conclude(&measured, &identity, json, Exit::Done)
}
