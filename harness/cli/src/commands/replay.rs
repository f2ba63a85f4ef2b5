//! `bench tune --replay`: strategies compared on a recorded space, without a device (R16).

use std::path::Path;

use anyhow::{Context, anyhow};
use harness_measure::tune::{STRATEGIES, Space, StrategyKind, play, read_lines};

use super::{print_json, print_text};
use crate::exit::{Exit, Outcome, usage};
use crate::grid::Grid;

/// A search has found the optimum if it is within this factor of it.
const NEAR: f64 = 1.02;

/// Plays every strategy, or one, over the spaces of a file.
pub fn run(path: &Path, only: Option<StrategyKind>, share: f64, searches: u64, json: bool) -> Outcome {
    if !(share > 0.0 && share <= 1.0) {
        return Err(usage(anyhow!("--share {share} is no share of a space; give a number above 0 and at most 1")));
    }
    if searches == 0 {
        return Err(usage(anyhow!("--searches 0 compares nothing; give at least 1")));
    }
    let bytes = std::fs::read(path).with_context(|| format!("reading the space {}", path.display())).map_err(usage)?;
    let (trials, warnings) = read_lines(&String::from_utf8_lossy(&bytes));
    warnings.iter().for_each(|w| eprintln!("warning: {}: {w}", path.display()));
    let spaces = Space::from_trials(&trials).map_err(|e| usage(anyhow!("{}: {e}", path.display())))?;
    let (mut rows, mut grid) =
        (Vec::new(), Grid::new(&["space", "strategy", "points", "evaluations", "median regret %", "within 2 %"]));
    for space in &spaces {
        let limit = ((space.candidates.len() as f64 * share) as usize).max(1);
        for strategy in STRATEGIES.into_iter().filter(|s| only.is_none_or(|o| o == *s)) {
            let limit = if strategy == StrategyKind::Exhaustive { space.candidates.len() } else { limit };
            let mut regrets: Vec<f64> = (0..searches)
                .map(|seed| {
                    play(space, strategy, seed, limit).best_ns.map_or(f64::INFINITY, |b| b / space.optimum_ns())
                })
                .collect();
            regrets.sort_by(f64::total_cmp);
            let near = regrets.iter().filter(|r| **r <= NEAR).count();
            let median = regrets[regrets.len() / 2] - 1.0;
            let name = format!("{} {}", space.workload, space.policy);
            grid.row([
                name.clone(),
                strategy.to_string(),
                space.candidates.len().to_string(),
                limit.to_string(),
                format!("{:.2}", median * 100.0),
                format!("{near} of {searches}"),
            ]);
            rows.push(serde_json::json!({
                "workload": space.workload.to_string(), "policy": space.policy.to_string(),
                "strategy": strategy.to_string(), "points": space.candidates.len(), "evaluations": limit,
                "seeds": searches, "median_regret": median, "within_2_percent": near, "optimum_ns": space.optimum_ns(),
            }));
        }
    }
    if json {
        print_json(&rows)?;
    } else {
        print_text(&grid.render())?;
    }
    Ok(Exit::Done)
}
