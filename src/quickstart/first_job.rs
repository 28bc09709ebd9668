//! The first real job: the watching plugin, triggered over HTTP like any client would.

use std::time::Duration;

use ductile_model::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{Gateway, Limit};

/// How long the gateway waits for the first job and all that it causes.
const WAIT: Duration = Duration::from_secs(60);
/// Longer, so that it is the gateway that says what became of a job that takes too long.
const LIMIT: Limit = Limit::Whole(WAIT.saturating_add(Duration::from_secs(5)));

/// How the first job ended.
pub(crate) struct FirstJob {
    pub(crate) job_id: String,
    pub(crate) status: String,
    pub(crate) tree: Vec<Value>,
    /// What its failed job printed on stderr, or why there is no result.
    pub(crate) cause: Option<String>,
}

/// Triggers the watching plugin and waits for its tree.
pub(crate) async fn trigger(api_url: &str, token: &Secret) -> Result<FirstJob, String> {
    let gateway = Gateway::at(api_url, Some(token.clone()), LIMIT).map_err(|failure| failure.to_string())?;
    let body = json!({"payload": {}, "sync": true, "timeout": format!("{}s", WAIT.as_secs())});
    let request = gateway.request(Method::POST, "/plugin/file_watch/poll").body(body.to_string());
    let answer = json_of(request).await?;
    let Some(job_id) = answer["job_id"].as_str() else {
        return Err(format!("the gateway answered: {answer}"));
    };
    let job_id = job_id.to_owned();
    let status = answer["status"].as_str().unwrap_or("unknown").to_owned();
    let tree = match answer["tree"].as_array() {
        Some(tree) => tree.clone(),
        None => unfinished_tree(&gateway, &job_id).await,
    };
    let cause = if status == "succeeded" { None } else { Some(cause_of(&gateway, &job_id, &tree).await) };
    Ok(FirstJob { job_id, status, tree, cause })
}

/// What ran so far, after the gateway gave up waiting.
async fn unfinished_tree(gateway: &Gateway, root: &str) -> Vec<Value> {
    match json_of(gateway.request(Method::GET, &format!("/job/{root}/tree"))).await {
        Ok(Value::Array(tree)) => tree,
        _ => Vec::new(),
    }
}

async fn cause_of(gateway: &Gateway, root: &str, tree: &[Value]) -> String {
    let failed = tree.iter().find(|node| node["status"] != "succeeded");
    let id = failed.and_then(|node| node["job_id"].as_str()).unwrap_or(root);
    let path = format!("/job/{id}?include=log");
    let Ok(job) = json_of(gateway.request(Method::GET, &path)).await else {
        return "its log can not be read".to_owned();
    };
    let error = job["last_error"].as_str().unwrap_or("not finished in time");
    let stderr = job["log"].as_array().and_then(|log| log.last()).and_then(|entry| entry["stderr"].as_str());
    match stderr {
        Some(stderr) => format!("{error}\n{stderr}"),
        None => error.to_owned(),
    }
}

async fn json_of(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let response = request.send().await.map_err(|error| error.to_string())?;
    let text = response.text().await.map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|_| format!("the gateway answered: {text}"))
}
