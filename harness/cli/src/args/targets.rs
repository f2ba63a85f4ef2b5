use std::path::PathBuf;

use clap::Args;

/// `bench targets`.
#[derive(Clone, Debug, Args)]
pub struct TargetsArgs {
    /// The folder of records that the figures are taken from.
    #[arg(long, value_name = "DIR", default_value = "reports/published")]
    pub records: PathBuf,
    /// Targets of your own, in place of those that the program carries.
    #[arg(long, value_name = "FILE.toml")]
    pub targets: Option<PathBuf>,
}
