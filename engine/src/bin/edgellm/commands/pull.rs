//! `edgellm pull`

use std::io::Write;

use engine::models::{PullSettings, Source, Store, TerminalProgress, pull_blocking};

use super::{binary, failure_of_pull};
use crate::args::PullArgs;
use crate::exit::Failure;

pub fn run(args: &PullArgs) -> Result<(), Failure> {
    let source = Source::parse(&args.source).map_err(failure_of_pull)?;
    let name = args.name.clone().unwrap_or_else(|| source.default_name());
    let store = Store::of_this_user()?;
    let pulled = pull_blocking(&store, &source, &name, &PullSettings::from_env(), &mut TerminalProgress::new());
    let entry = pulled.map_err(failure_of_pull)?;
    eprintln!("{name} is ready: {}, from {}", binary(entry.size), entry.source);
    eprintln!("try: edgellm run {name}");
    writeln!(std::io::stdout(), "{}", entry.path.display()).map_err(Failure::output)
}
