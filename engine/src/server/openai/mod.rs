//! OpenAI's API.

mod answer;
mod chat;
mod completions;
mod models;
mod params;

pub(super) use chat::chat_completions;
pub(super) use completions::completions;
pub(super) use models::{model, models};
