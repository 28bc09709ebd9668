//! The way from a command to a running gateway.

use std::time::Duration;

use ductile_config::{Purpose, plan};
use ductile_model::{Secret, untrusted_json};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::args::{Common, Remote};
use super::report::{self, Failure};
use crate::gateway::secrets::VaultSource;

const DEFAULT_URL: &str = "http://localhost:8080";

/// How long a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// From the connection to the last byte.
    Whole(Duration),
    /// As long as the caller waits: an answer may be a stream without an end.
    ByCaller,
}

/// Address and credential of a gateway.
pub(crate) struct Gateway {
    /// Base URL without a final slash; for a socket, any host.
    base: String,
    key: Option<Secret>,
    client: Client,
}

/// What a configuration knows about its gateway.
#[derive(Default)]
pub(crate) struct Discovered {
    url: Option<String>,
    key: Option<Secret>,
}

impl Gateway {
    /// Resolves address and key: flag, environment, configuration, default.
    pub(crate) fn resolve(remote: &Remote, common: &Common, limit: Limit) -> Result<Self, Failure> {
        let url = remote.api_url().map(str::to_owned).or_else(|| variable("DUCTILE_API_URL"));
        let key = remote.api_key().map(str::to_owned).or_else(|| variable("DUCTILE_API_KEY"));
        let needs_config = url.is_none() || key.is_none();
        let discovered = if needs_config { discover(common)? } else { Discovered::default() };
        let url = url.or(discovered.url).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let key = key.map(Secret::new).or(discovered.key);
        if common.verbose {
            report::note(format_args!("gateway: {url} ({} key)", if key.is_some() { "with a" } else { "without a" }));
        }
        Self::at(&url, key, limit)
    }

    /// A gateway at a known address.
    pub(crate) fn at(url: &str, key: Option<Secret>, limit: Limit) -> Result<Self, Failure> {
        let builder = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let builder = match limit {
            Limit::Whole(limit) => builder.timeout(limit),
            Limit::ByCaller => builder,
        };
        let (builder, base) = match url.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => {
                (builder.unix_socket(std::path::PathBuf::from(path)), "http://localhost".to_owned())
            }
            Some(_) => return Err(Failure::usage(format!("{url}: unix:// needs an absolute path"))),
            None => (builder, url.trim_end_matches('/').to_owned()),
        };
        let parsed = url::Url::parse(&base).map_err(|error| Failure::usage(format!("{url}: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Failure::usage(format!("{url}: the address must begin with http://, https:// or unix:///")));
        }
        let client = builder.build().map_err(Failure::internal)?;
        Ok(Self { base, key, client })
    }

    /// Whether there is a credential.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The host that is talked to.
    pub(crate) fn host(&self) -> String {
        url::Url::parse(&self.base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// A request with the credential, when there is one. `path` begins with a slash.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    /// Sends a request and takes the whole answer in.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, String), Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response.text().await.map_err(|error| self.unreachable(&error))?;
        Ok((status, body))
    }

    /// Sends JSON and takes JSON in; what is no success is a failure.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        let (status, body) = self.send(request.body(body.to_string())).await?;
        if !status.is_success() {
            return Err(api_error(status, &body));
        }
        untrusted_json::value(&body).map_err(|error| Failure::internal(format!("answer is not JSON: {error}")))
    }

    /// What to say when nobody answers.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return self.too_late();
        }
        let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Failure::unreachable(format!("no gateway reachable at {}{cause}", self.base))
    }

    /// What to say when the answer takes longer than the caller waits.
    pub(crate) fn too_late(&self) -> Failure {
        Failure::unreachable(format!("no answer in time from {}", self.base))
    }
}

/// The gateway said no.
pub(crate) fn api_error(status: StatusCode, body: &str) -> Failure {
    Failure::internal(format!("API error ({}): {}", status.as_u16(), body.trim_end())).with("status", status.as_u16())
}

/// Percent-encodes a path segment.
pub(crate) fn encode(segment: &str) -> String {
    url::form_urlencoded::byte_serialize(segment.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A one-thread runtime for a command that talks to a gateway.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::internal)?.block_on(work)
}

/// Looks for address and key in the configuration. One that was only discovered and does not load is ignored; one
/// that was named must load.
fn discover(common: &Common) -> Result<Discovered, Failure> {
    let environment = crate::environment();
    let explicit = common.named_config();
    let source = match common.locate(&environment) {
        Ok(source) => source,
        Err(problem) if explicit.is_some() => return Err(Failure::config(problem)),
        Err(_) => return Ok(Discovered::default()),
    };
    let vault = VaultSource::default();
    let plan = match plan(&source, &environment, &vault, Purpose::Inspecting) {
        Ok(plan) => plan,
        Err(refusal) if explicit.is_some() => return Err(Failure::config(refusal)),
        Err(_) => return Ok(Discovered::default()),
    };
    let api = &plan.config.api;
    let key =
        vault.opened().and_then(|vault| api.tokens.iter().find_map(|token| vault.resolve(&token.secret_ref).ok()));
    let mut listen = api.listen.clone();
    if matches!(listen.host.as_str(), "" | "0.0.0.0" | "::") {
        listen.host = "127.0.0.1".to_owned();
    }
    let url = api.enabled.then(|| format!("http://{listen}"));
    Ok(Discovered { url, key })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
