use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use engine::generate::{LoadOptions, TableChoice};
use engine::models::ModelName;
use engine::server::{KeepAlive, ServeOptions, ServedModel, StopOn, serve_blocking};

use crate::args::ServeEngineArgs;
use crate::exit::{Exit, Outcome};
use crate::peers::embedded::Ready;

/// `bench serve-engine`: serves one model on a free port of loopback, says where, and ends with its standard input.
pub fn run(args: ServeEngineArgs) -> Outcome {
    let load = LoadOptions {
        device: args.device,
        threads: Some(args.threads as usize),
        context: Some(args.ctx as usize),
        table: if args.baseline { TableChoice::Baseline } else { TableChoice::Device },
        kv: Some(args.kv.into()),
        ..LoadOptions::default()
    };
    let name: ModelName = args.name.parse().context("reading the served name")?;
    let options = ServeOptions {
        models: vec![ServedModel { name, path: args.model }],
        preload: Some(args.name),
        keep_alive: KeepAlive::Forever,
        ..ServeOptions::new(load)
    };
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    serve_blocking(options, any_port, StopOn::SignalsOrEndOfInput, |address| {
        let ready = Ready { listening: address.to_string() };
        // Whoever started this reads the line; if nobody does, the end of its input ends it as well.
        println!("{}", serde_json::to_string(&ready).expect("a line of plain text is JSON"));
    })
    .context("serving the engine")?;
    Ok(Exit::Done)
}
