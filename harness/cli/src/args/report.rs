use std::path::PathBuf;

use clap::Args;

/// `bench report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run's folder.
    #[arg(required_unless_present = "records")]
    pub folder: Option<PathBuf>,
    /// Print the tables as Markdown.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// A folder of runs, to make one page of: every machine, model and figure, each with a link to its run.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["folder", "markdown", "json"], requires = "out")]
    pub records: Option<PathBuf>,
    /// The page of --records; Markdown where its name ends in .md.
    #[arg(long, value_name = "FILE", requires = "records")]
    pub out: Option<PathBuf>,
}
