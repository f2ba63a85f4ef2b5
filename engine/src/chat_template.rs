//! The chat template of a model file: messages in, the prompt text out.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::gguf::{Gguf, MetaError};
use crate::tokenizer::Tokenizer;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; a template may know more.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A chat template, compiled.
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

/// The prompt for a model without a template: what was said, one message after the other, and nothing else.
///
/// A model that learnt no roles would take made-up role names for text.
pub fn plain(messages: &[Message]) -> String {
    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n")
}

/// What may go wrong between messages and a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The metadata has no usable template key.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The file brings no template.
    #[error(
        "the model has no chat template\nhint: send a plain prompt to the generate endpoint (edgellm run MODEL PROMPT --raw)"
    )]
    Absent,
    /// The template does not compile.
    #[error("the model's chat template is not valid: {why}")]
    Syntax {
        /// What the template engine says.
        why: String,
    },
    /// The template refuses these messages, or fails on them.
    #[error("the model's chat template refuses these messages: {why}")]
    Render {
        /// The template's own message where it raised one.
        why: String,
    },
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles the file's template; `None` where it has none.
    ///
    /// # Errors
    /// [`ChatError`] where the template is no valid Jinja.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, ChatError> {
        let Some(source) = gguf.opt_str("tokenizer.chat_template")? else { return Ok(None) };
        let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
        ChatTemplate::new(source, &text(tokenizer.bos()), &text(tokenizer.eos())).map(Some)
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// [`ChatError::Syntax`] where it is no valid Jinja.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate, ChatError> {
        let mut env = Environment::new();
        // The settings under which the transformers library renders: templates are written against it.
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        env.set_syntax(syntax.build().expect("the default delimiters differ from each other"));
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", |why: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, why))
        });
        env.add_function("strftime_now", strftime_now);
        env.add_filter("tojson", tojson);
        // In Python none is not iterable; templates tell by it that there are no tools.
        env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        env.add_template_owned(NAME, source.to_owned()).map_err(|error| ChatError::Syntax { why: describe(&error) })?;
        Ok(ChatTemplate { env, source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template as the file has it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for these messages, ready for the model's answer.
    ///
    /// # Errors
    /// [`ChatError::Render`] where the template refuses them, such as two user turns in a row.
    pub fn render(&self, messages: &[Message]) -> Result<String, ChatError> {
        self.render_with(messages, true)
    }

    /// The prompt for these messages, with or without the header of the answer.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let template = self.env.get_template(NAME).expect("`new` added it");
        let values = context! {
            messages => Value::from(Serde(messages)),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt,
            // The transformers library passes both, and templates ask whether they are none.
            tools => (),
            documents => (),
        };
        template.render(values).map_err(|error| ChatError::Render { why: describe(&error) })
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("bytes", &self.source.len()).finish_non_exhaustive()
    }
}

/// The message and the line, without the debug dump that the engine's own display may add.
fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// Today in the form asked for, in UTC: `%d %b %Y` is what Llama's templates use.
fn strftime_now(format: &str) -> Result<String, Error> {
    let format = time::format_description::parse_strftime_borrowed(format)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?;
    time::OffsetDateTime::now_utc()
        .format(&format)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// JSON as Python's `json.dumps` writes it: a space after each comma and colon, and no escapes for HTML, which the
/// filter built into the template engine would add.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let value = serde_json::to_value(value).map_err(failed)?;
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(failed)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)).map_err(failed)?,
    }
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String, ChatError> {
        let messages: Vec<Message> = messages.iter().map(|&(role, content)| Message::new(role, content)).collect();
        ChatTemplate::new(source, "<s>", "</s>")?.render(&messages)
    }

    #[test]
    fn a_template_may_use_python_methods_slices_and_namespaces() {
        let source = "{{ bos_token }}{%- if messages[0].role == 'system' %}\n{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}{{ m.content.strip().upper() }}|{% endfor %}";
        assert_eq!(render(source, &[("system", "x"), ("user", " a ")]).unwrap(), "<s>A|");
    }

    #[test]
    fn a_template_that_raises_gives_its_own_message() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[("user", "a")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model's chat template refuses these messages: roles must alternate (line 1 of the template)"
        );
    }

    #[test]
    fn without_a_template_the_prompt_is_what_was_said() {
        assert_eq!(plain(&[Message::new("system", "Be terse."), Message::new("user", "Hi")]), "Be terse.\n\nHi");
    }

    #[test]
    fn a_template_that_is_no_jinja_is_a_syntax_error() {
        assert!(matches!(render("{% for %}", &[]), Err(ChatError::Syntax { .. })));
    }

    #[test]
    fn no_tools_are_none_and_not_iterable() {
        let source = "{% if tools is none %}1{% endif %}{% if tools is iterable %}2{% endif %}\
                      {% if messages is iterable %}3{% endif %}{% if tools %}4{% endif %}";
        assert_eq!(render(source, &[]).unwrap(), "13");
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        let got = render("{{ messages | tojson }}", &[("user", "<a> & 'b'")]).unwrap();
        assert_eq!(got, r#"[{"role": "user", "content": "<a> & 'b'"}]"#);
        let indented = render("{{ {'a': 1} | tojson(indent=2) }}", &[]).unwrap();
        assert_eq!(indented, "{\n  \"a\": 1\n}");
    }

    #[test]
    fn the_date_is_formatted_as_templates_ask_for_it() {
        let got = render("{{ strftime_now('%d %b %Y') }}", &[]).unwrap();
        assert_eq!(got.split(' ').count(), 3, "{got}");
        assert!(got.ends_with(|c: char| c.is_ascii_digit()), "{got}");
    }
}
