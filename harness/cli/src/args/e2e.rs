use clap::Args;

use super::RunArgs;

/// `bench e2e`.
#[derive(Debug, Args)]
pub struct E2eArgs {
    /// edgellm, baseline, ollama, ollama=URL or openai=URL.
    #[arg(long, default_value = "edgellm")]
    pub backend: String,
    /// Flags of the run.
    #[command(flatten)]
    pub run: RunArgs,
}
