//! `edgellm serve`

use std::path::Path;
use std::time::Duration;

use engine::models::Store;
use engine::server::{KeepAlive, ServeOptions, ServedModel, StopOn, serve_blocking};

use super::find;
use crate::args::ServeArgs;
use crate::exit::Failure;

pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let addr = args.addr()?;
    let mut options = ServeOptions {
        store: Some(Store::of_this_user()?),
        queue_limit: args.queue as usize,
        body_limit: (args.body_limit as usize) << 20,
        grace: Duration::from_secs(args.grace.into()),
        ..ServeOptions::new(args.options())
    };
    if let Some(word) = &args.model {
        let entry = find(word)?;
        // A file, or a model under another name, is served beside those of the store.
        let is_path = Path::new(word).is_file();
        let name = args.name.clone().unwrap_or_else(|| entry.name.clone());
        if is_path || args.name.is_some() {
            options.models.push(ServedModel { name: name.clone(), path: entry.path });
        }
        options.preload = Some(name.to_string());
    }
    let default = if args.model.is_some() { KeepAlive::Forever } else { KeepAlive::default() };
    options.keep_alive = args.keep_alive.unwrap_or(default);
    let side_by_side = match args.parallel {
        1 => "one answer at a time".to_owned(),
        n => format!("{n} answers side by side"),
    };
    let stop_on = if args.until_eof { StopOn::SignalsOrEndOfInput } else { StopOn::Signals };
    serve_blocking(options, addr, stop_on, |bound| {
        eprintln!("serving on http://{bound}  (Ollama's API under /api, OpenAI's under /v1; {side_by_side})");
    })?;
    Ok(())
}
