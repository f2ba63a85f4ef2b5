//! One HTTP client for every source: small answers as text, models into a `.part` file that can be taken up again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use super::{PullError, PullSettings, remove_if_there};
use crate::models::{Progress, Sha256Hex, sha256_file};

/// A file to download.
pub(super) struct Wanted {
    pub url: String,
    /// The digest that the source states.
    pub sha256: Option<Sha256Hex>,
    /// The size that the source states.
    pub size: Option<u64>,
    /// A token that the server wants.
    pub bearer: Option<String>,
}

pub(super) struct Downloader<'a> {
    client: Client,
    settings: &'a PullSettings,
    progress: &'a mut dyn Progress,
}

/// How one attempt ended.
enum Attempt {
    Complete,
    /// The connection broke; the flag says whether bytes had come.
    Broken {
        cause: String,
        got_some: bool,
    },
}

impl<'a> Downloader<'a> {
    pub fn new(settings: &'a PullSettings, progress: &'a mut dyn Progress) -> Result<Downloader<'a>, PullError> {
        install_tls_provider();
        let client = Client::builder()
            .user_agent(concat!("edgellm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.silence.min(Duration::from_secs(20)))
            .read_timeout(settings.silence)
            .build()
            .map_err(|e| PullError::Client(innermost(&e)))?;
        Ok(Downloader { client, settings, progress })
    }

    /// Fetches a small answer whole: its text and content type.
    pub async fn text(&self, url: &str, accept: &str, bearer: Option<&str>) -> Result<(String, String), PullError> {
        let request = with_bearer(self.client.get(url).header(ACCEPT, accept), bearer);
        let unreachable =
            |e: reqwest::Error| PullError::Unreachable { url: without_password(url), cause: innermost(&e) };
        let mut response = check_status(request.send().await.map_err(unreachable)?, url)?;
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            bytes.extend_from_slice(&chunk);
            // A list of files or a manifest is small; a model sent by mistake must not fill the memory.
            if bytes.len() > 64 << 20 {
                let cause = "it is larger than 64 MiB".to_owned();
                return Err(PullError::Answer { url: without_password(url), what: "list or manifest", cause });
            }
        }
        Ok((String::from_utf8_lossy(&bytes).into_owned(), kind))
    }

    /// Downloads into `part`, going on from what is there, and checks the digest.
    pub async fn download(&mut self, wanted: &Wanted, part: &Path) -> Result<Sha256Hex, PullError> {
        let mut attempts_left = self.settings.attempts;
        let mut pause = self.settings.first_pause;
        loop {
            let attempt = self.attempt(wanted, part).await;
            self.progress.end();
            let Attempt::Broken { cause, got_some } = attempt? else { break };
            if got_some {
                (attempts_left, pause) = (self.settings.attempts, self.settings.first_pause);
            }
            attempts_left = attempts_left.saturating_sub(1);
            let got = length(part)?;
            if attempts_left == 0 {
                let url = without_password(&wanted.url);
                return Err(match got {
                    0 => PullError::Unreachable { url, cause },
                    _ => PullError::Interrupted { url, got, cause },
                });
            }
            self.progress.note(&format!("the connection broke ({cause}); going on from byte {got}"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(8));
        }
        self.check(wanted, part)
    }

    fn check(&mut self, wanted: &Wanted, part: &Path) -> Result<Sha256Hex, PullError> {
        let found = sha256_file(part, self.progress).map_err(|e| PullError::io("read", part, e))?;
        remove_if_there(&validator_file(part))?;
        match &wanted.sha256 {
            Some(expected) if *expected != found => {
                remove_if_there(part)?;
                Err(PullError::Digest { what: without_password(&wanted.url), expected: expected.clone(), found })
            }
            _ => Ok(found),
        }
    }

    async fn attempt(&mut self, wanted: &Wanted, part: &Path) -> Result<Attempt, PullError> {
        let mut already = length(part)?;
        if wanted.size.is_some_and(|size| already == size) {
            return Ok(Attempt::Complete);
        }
        let mut request = with_bearer(self.client.get(&wanted.url), wanted.bearer.as_deref());
        if already > 0 {
            match (resume_condition(part), &wanted.sha256) {
                // Without either, bytes of two different files could be joined unnoticed.
                (None, None) => already = 0,
                (Some(etag), _) => request = request.header(IF_RANGE, etag),
                (None, Some(_)) => {}
            }
        }
        if already > 0 {
            request = request.header(RANGE, format!("bytes={already}-"));
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return Ok(Attempt::Broken { cause: innermost(&e), got_some: false }),
        };
        if already > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return self.past_the_end(&response, already, part);
        }
        let response = check_status(response, &wanted.url)?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            already = 0; // The server sends the whole file, from its first byte.
        }
        self.receive(response, part, already, wanted.size).await
    }

    // The part may be the whole file already, when the break came just before it was checked.
    fn past_the_end(&self, response: &Response, already: u64, part: &Path) -> Result<Attempt, PullError> {
        let total =
            response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()?.rsplit('/').next()?.parse().ok());
        if total == Some(already) {
            return Ok(Attempt::Complete);
        }
        remove_if_there(part)?;
        Ok(Attempt::Broken { cause: "the file on the server has changed".to_owned(), got_some: false })
    }

    async fn receive(
        &mut self,
        mut response: Response,
        part: &Path,
        already: u64,
        size: Option<u64>,
    ) -> Result<Attempt, PullError> {
        let write_error = |e| PullError::io("write", part, e);
        let total = response.content_length().map(|rest| already + rest).or(size);
        let mut file = open_part(part, already).map_err(write_error)?;
        keep_validator(part, &response)?;
        self.progress.begin("downloading", total, already);
        let mut done = already;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    file.write_all(&chunk).map_err(write_error)?;
                    done += chunk.len() as u64;
                    self.progress.reached(done);
                }
                Ok(None) if total.is_some_and(|total| done < total) => {
                    return Ok(Attempt::Broken { cause: "the server closed it".to_owned(), got_some: done > already });
                }
                Ok(None) => return file.sync_all().map(|()| Attempt::Complete).map_err(write_error),
                Err(e) => return Ok(Attempt::Broken { cause: innermost(&e), got_some: done > already }),
            }
        }
    }
}

/// rustls takes its cryptography from a provider that the program chooses; another crate may have done so already.
fn install_tls_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The error is the other crate's provider, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn open_part(part: &Path, already: u64) -> std::io::Result<File> {
    if already == 0 { File::create(part) } else { OpenOptions::new().append(true).open(part) }
}

fn length(part: &Path) -> Result<u64, PullError> {
    match std::fs::metadata(part) {
        Ok(metadata) => Ok(metadata.len()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(PullError::io("read", part, e)),
    }
}

fn validator_file(part: &Path) -> PathBuf {
    part.with_extension("etag")
}

/// The strong ETag of the file that `part` is the beginning of.
fn resume_condition(part: &Path) -> Option<String> {
    std::fs::read_to_string(validator_file(part)).ok().filter(|etag| !etag.is_empty())
}

fn keep_validator(part: &Path, response: &Response) -> Result<(), PullError> {
    let path = validator_file(part);
    let etag = response.headers().get(ETAG).and_then(|v| v.to_str().ok()).filter(|etag| !etag.starts_with("W/"));
    match etag {
        Some(etag) => std::fs::write(&path, etag).map_err(|e| PullError::io("write", &path, e)),
        None => remove_if_there(&path),
    }
}

fn with_bearer(request: RequestBuilder, token: Option<&str>) -> RequestBuilder {
    match token {
        Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    }
}

fn check_status(response: Response, url: &str) -> Result<Response, PullError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(PullError::Status { url: without_password(url), status: status.as_u16() }),
    }
}

/// The innermost cause of an error, which says "connection refused" where the outer ones say "error sending".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// An address that can be shown: without the user and password that an index's address may carry.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("https://me:secret@host/simple/"), "https://host/simple/");
        assert_eq!(without_password("http://host/a@b"), "http://host/a@b");
        assert_eq!(without_password("no address"), "no address");
    }
}
