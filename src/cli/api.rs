//! `ductile api`: one request to a running gateway.

use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use ductile_model::untrusted_json;
use futures_util::StreamExt;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::args::{Common, Remote};
use super::client::{Gateway, Limit, block_on};
use super::report::{self, Failure};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ductile api /healthz\n  ductile api /plugin/echo/poll -f message=hello\n  ductile api /system/reload -X POST\n\nExit codes: 0 for a status below 400, 1 otherwise."
)]
pub(crate) struct Arguments {
    /// Path, such as /jobs?limit=5
    endpoint: Option<String>,
    /// Method [default: GET; POST when there is a body]
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// A field of the JSON body: k=v (true, false and integers are typed) or k:=json
    #[arg(short, long = "field", value_name = "K=V")]
    fields: Vec<String>,
    /// Raw body; - = stdin
    #[arg(short, long, conflicts_with = "fields")]
    body: Option<String>,
    /// A header, "Name: value"
    #[arg(short = 'H', long = "header", value_name = "N: V")]
    headers: Vec<String>,
    /// Time limit of the answer; a stream of events goes on until it is interrupted
    #[arg(long, default_value = "330s", value_name = "DUR")]
    timeout: String,
    /// Allow a host that is not local or private
    #[arg(long)]
    allow_remote: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(arguments: Arguments, common: &Common) -> Result<u8, Failure> {
    let Some(endpoint) = &arguments.endpoint else {
        return Err(Failure::usage("api: an endpoint is required, such as `ductile api /healthz`"));
    };
    let path = checked_path(endpoint)?;
    let timeout = timeout(&arguments.timeout)?;
    let body = body(&arguments)?;
    let method = match &arguments.method {
        Some(name) => Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| Failure::usage(format!("api: {name:?} is not a method")))?,
        None if body.is_some() => Method::POST,
        None => Method::GET,
    };
    let gateway = Gateway::resolve(&arguments.remote, common, Limit::ByCaller)?;
    if !arguments.allow_remote && !is_near(&gateway.host()) {
        return Err(Failure::usage(format!("api: {} is not a local or private host (--allow-remote)", gateway.host())));
    }
    let headers = headers(&arguments.headers)?;
    let mut request = gateway.request(method, &path);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    block_on(send(&gateway, request, timeout))
}

async fn send(gateway: &Gateway, request: reqwest::RequestBuilder, limit: Duration) -> Result<u8, Failure> {
    // What is too long to be counted from now is no limit.
    let deadline = Instant::now().checked_add(limit);
    let response = within(deadline, request.send(), gateway).await?;
    let status = response.status();
    let content_type = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if content_type.starts_with("text/event-stream") {
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            report::bytes(&chunk.map_err(|error| gateway.unreachable(&error))?);
        }
    } else {
        let body = within(deadline, response.bytes(), gateway).await?;
        match std::str::from_utf8(&body).map(untrusted_json::value) {
            Ok(Ok(value)) => report::json(&value),
            _ => report::bytes(&body),
        }
    }
    if status.as_u16() < 400 {
        return Ok(0);
    }
    report::note(format_args!(
        "Response Status: {} {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    ));
    Ok(1)
}

async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = reqwest::Result<T>>,
    gateway: &Gateway,
) -> Result<T, Failure> {
    let result = match deadline {
        Some(deadline) => timeout_at(deadline, work).await.map_err(|_| gateway.too_late())?,
        None => work.await,
    };
    result.map_err(|error| gateway.unreachable(&error))
}

fn checked_path(endpoint: &str) -> Result<String, Failure> {
    let refused = || Failure::usage(format!("api: {endpoint:?} must be a path of the gateway, such as /jobs"));
    if endpoint.starts_with("//") || endpoint.contains("://") || endpoint.contains('\\') || begins_with_host(endpoint) {
        return Err(refused());
    }
    let path = if endpoint.starts_with('/') { endpoint.to_owned() } else { format!("/{endpoint}") };
    // What a client library would make of it must still be the same host.
    let url = url::Url::parse(&format!("http://gateway{path}")).map_err(|_| refused())?;
    if url.host_str() == Some("gateway") { Ok(path) } else { Err(refused()) }
}

/// Whether the first part can only be meant as a host: no path of the gateway begins like this.
fn begins_with_host(endpoint: &str) -> bool {
    let first = endpoint.split(['/', '?', '#']).next().unwrap_or_default();
    first.contains([':', '@', '[']) || first.eq_ignore_ascii_case("localhost") || first.parse::<IpAddr>().is_ok()
}

fn timeout(text: &str) -> Result<Duration, Failure> {
    ductile_model::parse_duration(text).map_err(|error| Failure::usage(format!("--timeout: {error}")))
}

fn body(arguments: &Arguments) -> Result<Option<String>, Failure> {
    match arguments.body.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(Failure::usage)?;
            Ok(Some(text))
        }
        Some(text) => Ok(Some(text.to_owned())),
        None if arguments.fields.is_empty() => Ok(None),
        None => {
            let mut object = Map::new();
            for field in &arguments.fields {
                let (key, value) = typed_field(field)?;
                object.insert(key, value);
            }
            Ok(Some(Value::Object(object).to_string()))
        }
    }
}

/// A field as it is written on the command line: `key=value`, or `key:=json`.
pub(super) fn typed_field(field: &str) -> Result<(String, Value), Failure> {
    let (key, value) = field
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("--field {field:?} must be key=value or key:=json")))?;
    if let Some(key) = key.strip_suffix(':') {
        let value = untrusted_json::value(value)
            .map_err(|error| Failure::usage(format!("--field {key}: not valid JSON: {error}")))?;
        return Ok((key.to_owned(), value));
    }
    let value = match value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
    };
    Ok((key.to_owned(), value))
}

fn headers(texts: &[String]) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    texts
        .iter()
        .map(|text| {
            let wrong = || Failure::usage(format!("--header {text:?} must be \"Name: value\""));
            let (name, value) = text.split_once(':').ok_or_else(wrong)?;
            Ok((name.trim().parse().map_err(|_| wrong())?, value.trim().parse().map_err(|_| wrong())?))
        })
        .collect()
}

/// Whether a host is this machine or a private network.
fn is_near(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_with_a_host_are_refused() {
        assert_eq!(checked_path("jobs").unwrap(), "/jobs");
        assert_eq!(checked_path("/jobs?limit=1").unwrap(), "/jobs?limit=1");
        assert_eq!(checked_path("jobs?from=10:30").unwrap(), "/jobs?from=10:30");
        assert_eq!(checked_path("plugin/a:b/poll").unwrap(), "/plugin/a:b/poll");
        for endpoint in [
            "//evil/x",
            "http://evil/x",
            "\\\\evil",
            "localhost:8080/healthz",
            "localhost/healthz",
            "127.0.0.1/healthz",
            "[::1]:8080/healthz",
            "user@evil/x",
        ] {
            assert!(checked_path(endpoint).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn field_values_are_typed() {
        assert_eq!(typed_field("n=5").unwrap().1, Value::from(5));
        assert_eq!(typed_field("b=true").unwrap().1, Value::Bool(true));
        assert_eq!(typed_field("s=a=b").unwrap().1, Value::from("a=b"));
        assert_eq!(typed_field("o:={\"x\":[1]}").unwrap().1, serde_json::json!({"x": [1]}));
        assert!(typed_field("nothing").is_err());
    }

    #[test]
    fn only_near_hosts_are_talked_to() {
        for host in ["localhost", "127.0.0.1", "[::1]", "10.1.2.3", "192.168.0.9", "[fe80::1]"] {
            assert!(is_near(host), "{host}");
        }
        for host in ["example.org", "8.8.8.8", "[2001:4860::8888]"] {
            assert!(!is_near(host), "{host}");
        }
    }
}
