//! Stop strings as both APIs take them.

use serde::Deserialize;

/// One stop string or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Stops {
    One(String),
    Many(Vec<String>),
}

impl From<Stops> for Vec<String> {
    fn from(stops: Stops) -> Vec<String> {
        match stops {
            Stops::One(stop) => vec![stop],
            Stops::Many(stops) => stops,
        }
    }
}
