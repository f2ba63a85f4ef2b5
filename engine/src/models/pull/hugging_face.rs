//! GGUF files of a Hugging Face repository.

use serde::Deserialize;

use super::download::Wanted;
use super::{PullError, Puller};
use crate::models::Entry;

#[derive(Deserialize)]
struct TreeItem {
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
}

/// Quantisations in the order in which one is chosen when the user names none: small enough for an edge device
/// first, and among those the one that people publish most.
const PREFERRED: [&str; 7] = ["q4_k_m", "q4_0", "q4_k_s", "q4_1", "q8_0", "q6_k", "f16"];

pub(super) async fn pull(puller: &mut Puller<'_>, repo: &str, want: Option<&str>) -> Result<Entry, PullError> {
    let base = puller.settings.hugging_face.clone();
    let bearer = puller.settings.hugging_face_token.clone();
    let url = format!("{base}/api/models/{repo}/tree/main?recursive=true");
    let text = match puller.downloader()?.text(&url, "application/json", bearer.as_deref()).await {
        Ok((text, _)) => text,
        Err(PullError::Status { status: 404, .. }) => {
            return Err(PullError::UnknownModel { place: base, model: repo.to_owned() });
        }
        Err(error) => return Err(error),
    };
    let items: Vec<TreeItem> = serde_json::from_str(&text).map_err(|e| PullError::Answer {
        url: url.clone(),
        what: "list of a repository's files",
        cause: e.to_string(),
    })?;
    let ggufs: Vec<&TreeItem> = items.iter().filter(|item| item.path.to_ascii_lowercase().ends_with(".gguf")).collect();
    let chosen = choose(&ggufs, want).ok_or_else(|| PullError::NoSuchFile {
        repo: repo.to_owned(),
        want: want.map(str::to_owned),
        have: ggufs.iter().map(|item| item.path.clone()).collect(),
    })?;
    if is_split(&chosen.path) {
        return Err(PullError::SplitFile { file: chosen.path.clone() });
    }
    let sha256 = chosen.lfs.as_ref().and_then(|lfs| lfs.oid.parse().ok());
    let key = match &sha256 {
        Some(sha256) => format!("sha256-{sha256}"),
        None => format!("hf-{repo}-{}", chosen.path),
    };
    let path = chosen.path.replace(' ', "%20");
    let wanted = Wanted {
        url: format!("{base}/{repo}/resolve/main/{path}"),
        sha256,
        size: (chosen.size > 0).then_some(chosen.size),
        bearer,
    };
    puller.fetch(&wanted, &key, &format!("{base}/{repo}/{}", chosen.path)).await
}

fn choose<'a>(ggufs: &[&'a TreeItem], want: Option<&str>) -> Option<&'a TreeItem> {
    let Some(want) = want else {
        let preferred = PREFERRED.iter().find_map(|quant| with_quant(ggufs, quant));
        return preferred.or_else(|| ggufs.first().copied());
    };
    let exact = ggufs.iter().find(|item| item.path == want || item.path.rsplit('/').next() == Some(want));
    exact.copied().or_else(|| with_quant(ggufs, want))
}

// The quantisation is the last word of the name: `model-Q4_K_M.gguf` is not what `Q4_K` asks for.
fn with_quant<'a>(ggufs: &[&'a TreeItem], quant: &str) -> Option<&'a TreeItem> {
    let quant = quant.to_ascii_lowercase();
    let is_it = |item: &&&TreeItem| {
        let stem = item.path.to_ascii_lowercase();
        let stem = stem.trim_end_matches(".gguf");
        let stem = stem.split("-00001-of-").next().unwrap_or(stem);
        stem.strip_suffix(&quant).is_some_and(|before| before.is_empty() || before.ends_with(['-', '.', '_', '/']))
    };
    ggufs.iter().find(is_it).copied()
}

fn is_split(path: &str) -> bool {
    let stem = path.trim_end_matches(".gguf");
    let Some((before, total)) = stem.rsplit_once("-of-") else { return false };
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    is_number(total) && before.rsplit('-').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(paths: &[&str], want: Option<&str>) -> Option<String> {
        let items: Vec<TreeItem> =
            paths.iter().map(|p| TreeItem { path: (*p).to_owned(), size: 1, lfs: None }).collect();
        choose(&items.iter().collect::<Vec<_>>(), want).map(|item| item.path.clone())
    }

    #[test]
    fn a_quantisation_is_matched_as_a_whole_word() {
        let files = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf", "sub/m.Q4_0.gguf"];
        assert_eq!(chosen(&files, Some("q8_0")).as_deref(), Some("m-Q8_0.gguf"));
        assert_eq!(chosen(&files, Some("Q4_0")).as_deref(), Some("sub/m.Q4_0.gguf"));
        assert_eq!(chosen(&files, Some("Q4_K")), None);
        assert_eq!(chosen(&files, Some("m-Q4_K_S.gguf")).as_deref(), Some("m-Q4_K_S.gguf"));
        assert_eq!(chosen(&files, None).as_deref(), Some("m-Q4_K_M.gguf"));
        assert_eq!(chosen(&["odd.gguf"], None).as_deref(), Some("odd.gguf"));
        assert_eq!(chosen(&[], None), None);
    }

    #[test]
    fn a_model_in_several_files_is_recognised() {
        assert!(is_split("m-q4_k_m-00001-of-00003.gguf"));
        assert!(!is_split("best-of-5.gguf"));
    }
}
