//! The part of Go's template language that short Ollama templates use: fields and conditions on them.

/// Why a template cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GoTemplateError {
    /// A `{{` without its `}}`.
    #[error("the template has a {{{{ that is not closed")]
    Open,
    /// An action beyond fields and conditions.
    #[error(
        "the template's {{{{ {action} }}}} is not supported: use {{{{ .System }}}}, {{{{ .Prompt }}}}, \
         {{{{ if .System }}}}, else and end, or a Jinja template"
    )]
    Action {
        /// What stands between the braces.
        action: String,
    },
    /// `else` or `end` without `if`, or `if` without `end`.
    #[error("the template's if, else and end do not match")]
    Nesting,
}

/// Whether a template is Go's: it names fields with a dot.
pub(super) fn is_go(template: &str) -> bool {
    actions_of(template).is_some_and(|actions| actions.iter().any(|a| a.starts_with('.') || a.contains(" .")))
}

fn actions_of(template: &str) -> Option<Vec<String>> {
    let (_, actions) = parts(template).ok()?;
    Some(actions)
}

/// Splits into texts and the actions between them; there is one more text than actions.
fn parts(template: &str) -> Result<(Vec<String>, Vec<String>), GoTemplateError> {
    let (mut texts, mut actions) = (Vec::new(), Vec::new());
    let mut rest = template;
    let mut trims_start = false;
    loop {
        let (text, after) = match rest.split_once("{{") {
            Some((text, after)) => (text, Some(after)),
            None => (rest, None),
        };
        let mut text = if trims_start { text.trim_start() } else { text };
        let Some(after) = after else {
            texts.push(text.to_owned());
            return Ok((texts, actions));
        };
        let (action, behind) = after.split_once("}}").ok_or(GoTemplateError::Open)?;
        // `{{-` and `-}}` eat the white space on their side.
        let action = match action.strip_prefix('-') {
            Some(action) => {
                text = text.trim_end();
                action
            }
            None => action,
        };
        let trimmed = action.strip_suffix('-');
        trims_start = trimmed.is_some();
        texts.push(text.to_owned());
        actions.push(trimmed.unwrap_or(action).trim().to_owned());
        rest = behind;
    }
}

/// Renders up to `.Response`, where the model's answer begins.
pub(super) fn render(template: &str, system: &str, prompt: &str) -> Result<String, GoTemplateError> {
    let (texts, actions) = parts(template)?;
    let field = |name: &str| match name {
        ".System" => Some(system),
        ".Prompt" => Some(prompt),
        ".Response" => Some(""),
        _ => None,
    };
    let mut out = String::new();
    // For every open `if`: whether its branch is shown.
    let mut shown: Vec<bool> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let is_shown = shown.iter().all(|shown| *shown);
        if is_shown {
            out.push_str(text);
        }
        let Some(action) = actions.get(i) else { break };
        let unknown = || GoTemplateError::Action { action: action.clone() };
        if let Some(condition) = action.strip_prefix("if ") {
            shown.push(!field(condition.trim()).ok_or_else(unknown)?.is_empty());
        } else if action == "else" {
            let last = shown.last_mut().ok_or(GoTemplateError::Nesting)?;
            *last = !*last;
        } else if action == "end" {
            shown.pop().ok_or(GoTemplateError::Nesting)?;
        } else {
            let value = field(action).ok_or_else(unknown)?;
            if is_shown && action == ".Response" {
                return Ok(out);
            }
            if is_shown {
                out.push_str(value);
            }
        }
    }
    if shown.is_empty() { Ok(out) } else { Err(GoTemplateError::Nesting) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}<|im_start|>user\n\
                          {{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ .Response }}<|im_end|>\n";

    #[test]
    fn a_template_of_ollama_is_rendered_up_to_the_answer() {
        assert!(is_go(CHATML));
        let want = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(render(CHATML, "Be brief.", "Hi").unwrap(), want);
        assert_eq!(render(CHATML, "", "Hi").unwrap(), want.split_once("<|im_end|>\n").unwrap().1);
    }

    #[test]
    fn white_space_is_trimmed_where_the_template_says_so() {
        assert_eq!(render("a \n{{- .Prompt -}}\n b", "", "X").unwrap(), "aXb");
        assert_eq!(render("{{ if .System }}s{{ else }}n{{ end }} {{.Prompt}}", "", "p").unwrap(), "n p");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let action = render("{{ range .Messages }}{{ end }}", "", "p").unwrap_err();
        assert!(matches!(action, GoTemplateError::Action { .. }), "{action}");
        assert_eq!(render("{{ .Prompt", "", "p"), Err(GoTemplateError::Open));
        assert_eq!(render("{{ if .Prompt }}", "", "p"), Err(GoTemplateError::Nesting));
        assert_eq!(render("{{ end }}", "", "p"), Err(GoTemplateError::Nesting));
    }

    #[test]
    fn a_jinja_template_is_not_taken_for_gos() {
        assert!(!is_go("{% for m in messages %}{{ m.content }}{% endfor %}{{ bos_token }}"));
    }
}
