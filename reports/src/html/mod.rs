//! The report as one page that needs nothing else: no script, no font, no address on any network.

mod page;

pub(crate) use page::{Figure, figure};

use harness_spec::record::{RunRecord, Sample};
use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde::Serialize;

use crate::charts::{self, ChartOutcome};
use crate::error::ReportError;
use crate::series::Runs;

/// Ends in `.html`, so that the engine escapes every value that is not marked safe here.
const TEMPLATE_NAME: &str = "report.html";
const TEMPLATE: &str = include_str!("report.html");
pub(crate) const STYLE: &str = include_str!("report.css");

/// The page of a record and its samples.
///
/// # Errors
/// [`ReportError::Draw`] or [`ReportError::Render`].
pub fn html(record: &RunRecord, samples: &[Sample]) -> Result<String, ReportError> {
    let runs = Runs::new(samples);
    render(record, &runs, &charts::draw_runs(record, &runs)?)
}

/// The page with charts that are drawn already.
pub(crate) fn render(record: &RunRecord, runs: &Runs, drawn: &[ChartOutcome]) -> Result<String, ReportError> {
    let page = page::build(record, runs, drawn, STYLE);
    render_page(TEMPLATE, &page)
}

/// A template filled with the values of a page.
pub(crate) fn render_page(template: &str, page: &impl Serialize) -> Result<String, ReportError> {
    let mut engine = Environment::new();
    let failed = |source| ReportError::Render { source };
    engine.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?);
    engine.add_template(TEMPLATE_NAME, template).map_err(failed)?;
    let template = engine.get_template(TEMPLATE_NAME).map_err(failed)?;
    let text = template.render(Serde(page)).map_err(failed)?;
    Ok(without_addresses(&text))
}

/// Writes the first letter of every scheme-like word as a character reference. Readers see the same text, and the
/// file holds no address, whatever a prompt, a peer or an error message contained.
fn without_addresses(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(at) = rest.find(['h', 'H']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let is_word = tail.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("http"));
        out.push_str(match (is_word, tail.starts_with('h')) {
            (true, true) => "&#104;",
            (true, false) => "&#72;",
            (false, _) => &tail[..1],
        });
        rest = &tail[1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_the_same_but_is_not_in_the_file() {
        assert_eq!(
            without_addresses("see http://x and HTTPS://y, hé, hat, h"),
            "see &#104;ttp://x and &#72;TTPS://y, hé, hat, h"
        );
    }
}
