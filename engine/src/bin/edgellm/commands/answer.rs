//! One answer of the model, streamed to stdout.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use engine::Engine;
use engine::generate::{Event, Finish, GenerateError, GenerateRequest};

use crate::exit::Failure;
use crate::interrupt::Interrupt;

/// An answer, as far as it came.
pub struct Answer {
    pub text: String,
    pub was_stopped: bool,
}

/// Why there is no answer.
pub enum AnswerError {
    /// The request cannot be answered; a conversation can go on without it.
    Request(GenerateError),
    /// The program cannot go on.
    Failure(Failure),
}

/// Generates and prints each token as it comes.
pub fn stream(
    engine: &mut Engine,
    request: &GenerateRequest,
    interrupt: &Interrupt,
    is_verbose: bool,
) -> Result<Answer, AnswerError> {
    let start = Instant::now();
    let mut stdout = io::stdout().lock();
    let mut text = String::new();
    let mut first = None;
    let mut broken = None;
    interrupt.begin();
    let finish = engine.generate(request, &mut |event| {
        if let Event::Token { text: piece, .. } = event {
            first.get_or_insert_with(|| start.elapsed());
            text.push_str(piece);
            // Flushed for every token, or a terminal shows lines and not words.
            if let Err(error) = stdout.write_all(piece.as_bytes()).and_then(|()| stdout.flush()) {
                broken = Some(error);
                return ControlFlow::Break(());
            }
        }
        if interrupt.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let was_stopped = interrupt.end();
    if let Some(error) = broken {
        return Err(AnswerError::Failure(Failure::output(error)));
    }
    let finish = finish.map_err(AnswerError::Request)?;
    writeln!(stdout).map_err(|error| AnswerError::Failure(Failure::output(error)))?;
    if is_verbose {
        eprintln!("{}", timings(&finish, first.unwrap_or_default(), start.elapsed()));
    }
    Ok(Answer { text, was_stopped })
}

fn timings(finish: &Finish, first: Duration, total: Duration) -> String {
    let rate = |tokens: usize, time: Duration| match time.is_zero() {
        true => "-".to_owned(),
        false => format!("{:.2}", tokens as f64 / time.as_secs_f64()),
    };
    let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
    // The first token falls out of the prompt; decoding made the others.
    let decoded = finish.generated.saturating_sub(1);
    [
        format!("prompt            {} tokens in {}", finish.prompt_tokens, seconds(finish.prompt_time)),
        format!("prefill rate      {} tok/s", rate(finish.prompt_tokens, finish.prompt_time)),
        format!("first token after {}", seconds(first)),
        format!("answer            {} tokens in {}", finish.generated, seconds(finish.decode_time)),
        format!("decode rate       {} tok/s at batch 1", rate(decoded, finish.decode_time)),
        format!("total             {}", seconds(total)),
    ]
    .join("\n")
}
