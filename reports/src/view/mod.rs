//! What every form of a report shows, as ready text: built once from the record, laid out by the forms.

pub(crate) mod breakdown;
pub(crate) mod depths;
pub(crate) mod facts;
pub(crate) mod format;
pub(crate) mod metrics;
pub(crate) mod percentiles;
