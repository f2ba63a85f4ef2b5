//! CSV exports by RFC 4180, with a header line. An empty field is a missing value, never 0.

use harness_measure::{metrics, pairs};
use harness_spec::record::{MetricId, RunRecord, Sample, SampleStatus, SideRole, SideSummary};

use crate::view::format;

/// The metrics of a record, one line each.
pub fn metrics_csv(record: &RunRecord) -> String {
    let header = "metric,group,engine_n,engine_median,engine_ci_low,engine_ci_high,peer_n,peer_median,peer_ci_low,\
                  peer_ci_high,ratio,ratio_ci_low,ratio_ci_high,level,p_holm,tau,verdict,note";
    let lines = record.metrics.iter().map(|m| {
        let mut fields = vec![name_of(m.id), m.group.clone()];
        fields.extend(side_fields(Some(&m.engine)));
        fields.extend(side_fields(m.peer.as_ref()));
        match &m.ratio {
            Some(r) => fields.extend([r.ratio, r.ci[0], r.ci[1], r.level, r.p_holm, r.tau].map(|v| v.to_string())),
            None => fields.extend(std::iter::repeat_n(String::new(), 6)),
        }
        fields.push(m.verdict.map(format::verdict).unwrap_or_default().to_owned());
        fields.push(m.note.clone().unwrap_or_default());
        fields
    });
    table(header, lines)
}

/// The samples, one line a run, with the judgement that the metrics rest on; token times and texts stay in `samples.jsonl`.
pub fn samples_csv(samples: &[Sample]) -> String {
    let header = "seq,pair,block,side,prompt,asked_tokens,prompt_tokens,generated_tokens,status,dropped,error,\
                  decode_tok_per_s,ttft_ms,itl_p50_ms,itl_jitter_ms,total_ms,rss_bytes";
    let measured =
        [MetricId::DecodeTokPerS, MetricId::TtftMs, MetricId::ItlP50Ms, MetricId::ItlJitterMs, MetricId::TotalMs];
    let lines = samples.iter().zip(pairs::judge(samples)).map(|(s, dropped)| {
        let (status, error) = match &s.status {
            SampleStatus::Length => ("length", ""),
            SampleStatus::Stop => ("stop", ""),
            SampleStatus::Failed { error } => ("failed", error.as_str()),
            SampleStatus::Interrupted => ("interrupted", ""),
        };
        let side = match s.side {
            SideRole::Engine => "engine",
            SideRole::Peer => "peer",
        };
        let mut fields = vec![s.seq.to_string(), s.pair.to_string(), s.block.to_string(), side.to_owned()];
        fields.extend([s.prompt.clone(), s.asked_tokens.to_string(), s.prompt_tokens.to_string()]);
        fields.extend([s.generated_tokens.to_string(), status.to_owned()]);
        fields.push(dropped.map(name_of).unwrap_or_default());
        fields.push(format::one_line(error));
        fields.extend(measured.map(|id| metrics::value(s, id).map(|v| v.to_string()).unwrap_or_default()));
        fields.push(s.rss_bytes.map(|b| b.to_string()).unwrap_or_default());
        fields
    });
    table(header, lines)
}

/// The four fields of one side.
fn side_fields(side: Option<&SideSummary>) -> [String; 4] {
    let Some(e) = side.and_then(|s| s.estimate.as_ref()) else {
        return Default::default();
    };
    let end = |at: usize| e.ci95.map(|ci| ci[at].to_string()).unwrap_or_default();
    [e.n.to_string(), e.median.to_string(), end(0), end(1)]
}

/// The name that a unit variant has in the record.
fn name_of(variant: impl serde::Serialize) -> String {
    let value = serde_json::to_value(variant).ok();
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// Header and lines, quoted where they must be.
fn table(header: &str, lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = format!("{header}\n");
    for fields in lines {
        let quoted: Vec<String> = fields.iter().map(|f| quoted(f)).collect();
        out.push_str(&quoted.join(","));
        out.push('\n');
    }
    out
}

/// One field. Text that a spreadsheet would run as a formula gets a leading apostrophe.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@']) && field.parse::<f64>().is_err();
    let text = if formula { format!("'{field}") } else { field.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_comma_or_a_quote_is_quoted_and_a_formula_is_disarmed() {
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(quoted("=1+1"), "'=1+1");
        assert_eq!(quoted("-1.5"), "-1.5");
    }
}
