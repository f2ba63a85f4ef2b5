//! A Python package index, found as pip finds it, and its list of a project's files.
//!
//! Both forms of the simple API are read: JSON (PEP 691) and HTML (PEP 503).

use std::process::Command;

use serde::Deserialize;

use super::download::{Downloader, without_password};
use super::{PullError, PullSettings};
use crate::models::Sha256Hex;

/// A file of a project.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IndexFile {
    pub url: String,
    pub sha256: Option<Sha256Hex>,
}

/// The address of the index: as set for us, as set for pip, or pip's own default. The error is a sentence.
pub(super) fn address(settings: &PullSettings) -> Result<String, String> {
    if let Some(index) = &settings.package_index {
        return Ok(index.clone());
    }
    let configured = ask(settings, &["-m", "pip", "config", "get", "global.index-url"]);
    let default = || ask(settings, &["-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"]);
    configured.or_else(|_| default()).map_err(|cause| format!("no package index is known: {cause}"))
}

/// What Python prints, if it is an address.
fn ask(settings: &PullSettings, args: &[&str]) -> Result<String, String> {
    let python = settings.python.display();
    let output = Command::new(&settings.python).args(args).output().map_err(|e| format!("{python}: {e}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match printed.starts_with("http") {
        true => Ok(printed.trim_end_matches('/').to_owned()),
        false => Err(format!("{python} has no pip that says which it uses")),
    }
}

/// The file of this name in the project's list.
pub(super) async fn find_file(
    downloader: &Downloader<'_>,
    index: &str,
    project: &str,
    file: &str,
) -> Result<IndexFile, PullError> {
    let url = format!("{}/{project}/", index.trim_end_matches('/'));
    let accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.2";
    let (text, kind) = downloader.text(&url, accept, None).await?;
    let answer = |what: &'static str, cause: String| PullError::Answer { url: without_password(&url), what, cause };
    let files = if kind.contains("json") {
        from_json(&text).map_err(|e| answer("list of a project's files", e.to_string()))?
    } else {
        from_html(&text)
    };
    let found = files.into_iter().find(|(name, _)| name == file);
    let (_, found) = found.ok_or_else(|| answer("list with the file", format!("it does not name {file}")))?;
    let base = reqwest::Url::parse(&url).map_err(|e| answer("address", e.to_string()))?;
    let absolute = base.join(&found.url).map_err(|e| answer("address", e.to_string()))?;
    Ok(IndexFile { url: absolute.into(), ..found })
}

fn from_json(text: &str) -> Result<Vec<(String, IndexFile)>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Project {
        files: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: Hashes,
    }
    #[derive(Deserialize, Default)]
    struct Hashes {
        sha256: Option<String>,
    }
    let project: Project = serde_json::from_str(text)?;
    let file = |listed: Listed| {
        let sha256 = listed.hashes.sha256.and_then(|hash| hash.parse().ok());
        (listed.filename, IndexFile { url: listed.url, sha256 })
    };
    Ok(project.files.into_iter().map(file).collect())
}

// PEP 503 prescribes the form closely: an anchor for each file, its name as text, its hash as fragment.
fn from_html(text: &str) -> Vec<(String, IndexFile)> {
    let anchors = text.split("<a ").skip(1);
    anchors
        .filter_map(|anchor| {
            let href = anchor.split_once("href=")?.1;
            let quote = href.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let href = href[1..].split(quote).next()?.replace("&amp;", "&");
            let name = anchor.split_once('>')?.1.split('<').next()?.trim().to_owned();
            let (url, fragment) = href.split_once('#').unwrap_or((&href, ""));
            let sha256 = fragment.strip_prefix("sha256=").and_then(|hash| hash.parse().ok());
            Some((name, IndexFile { url: url.to_owned(), sha256 }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

    #[test]
    fn both_forms_of_the_simple_api_are_read() {
        let html = format!(
            "<!DOCTYPE html><html><body><h1>Links</h1>\n<a data-x=\"1\" href=\"../../p/a-1.whl#sha256={HASH}\" \
             data-requires-python=\"&gt;=3.9\">a-1.whl</a><br/><a href='https://h/b.tar.gz'>b.tar.gz</a></body></html>"
        );
        let json = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"a","files":[
               {{"filename":"a-1.whl","url":"../../p/a-1.whl","hashes":{{"sha256":"{HASH}"}},"size":3}},
               {{"filename":"b.tar.gz","url":"https://h/b.tar.gz","hashes":{{}}}}]}}"#
        );
        let want = vec![
            ("a-1.whl".to_owned(), IndexFile { url: "../../p/a-1.whl".to_owned(), sha256: HASH.parse().ok() }),
            ("b.tar.gz".to_owned(), IndexFile { url: "https://h/b.tar.gz".to_owned(), sha256: None }),
        ];
        assert_eq!(from_html(&html), want);
        assert_eq!(from_json(&json).unwrap(), want);
    }

    #[test]
    fn a_page_that_is_no_list_names_no_file() {
        assert!(from_html("<html><a name=x>y</a> <a href=nothing").is_empty());
        assert!(from_json("[]").is_err());
    }
}
