//! The service that a generation installs on its listener: everything that all requests have in common, around the
//! route match.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use ductile_listeners::{Body, HttpService, Peer, Request};
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::reply::Response;

use crate::actor::ApiArgs;
use crate::context::{Context, Credential, REQUEST_ID};
use crate::cors::Cors;
use crate::error::ApiError;
use crate::paths;
use crate::rate::Caller;
use crate::reply::refuse;
use crate::routes::{Unmatched, routes};
use crate::state::Api;

/// The matcher, whose own type has no name.
type Routes = Box<dyn Fn(Request) -> Matched + Send + Sync>;
type Matched = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// The API of one generation.
pub(crate) struct ApiService {
    api: Arc<Api>,
    routes: Routes,
}

impl ApiService {
    pub(crate) fn new(args: &ApiArgs) -> Self {
        let api = Arc::new(Api::new(args));
        let matcher = TowerToHyperService::new(warp::service(routes(&api)));
        let routes = Box::new(move |request| -> Matched { Box::pin(matcher.call(request)) });
        Self { api, routes }
    }

    async fn serve(&self, request: Request, peer: Peer) -> http::Response<Body> {
        let tokens = &self.api.plan.tokens;
        let context = Arc::new(Context::new(request.headers(), request.uri(), peer, tokens));
        let mut record = AccessRecord::new(&self.api, &context, request.method().clone());
        let cors = Cors::of(request.headers().get(ORIGIN), &self.api.plan.config.api.allowed_origins);
        let mut response = if cors.answers_preflight(request.method(), request.headers()) {
            preflight()
        } else if self.admits(&context, record.begun) {
            self.route(request, &context).await
        } else {
            refuse(&context, ApiError::rate_limited())
        };
        cors.mark(response.headers_mut());
        mark(response.headers_mut(), &context);
        record.status = response.status();
        response.map(|body| body.map_err(Into::into).boxed())
    }

    fn admits(&self, context: &Context, now: Instant) -> bool {
        let Some(rate) = &self.api.rate else { return true };
        let caller = match context.credential {
            Credential::Token(index) => Caller::Token(index),
            Credential::Absent | Credential::Malformed | Credential::Unknown => {
                Caller::Stranger(context.peer.remote.ip())
            }
        };
        rate.admits(caller, now)
    }

    async fn route(&self, mut request: Request, context: &Arc<Context>) -> Response {
        if paths::normalise(request.uri_mut()).is_err() {
            return refuse(context, ApiError::not_found("not found"));
        }
        let allowed = paths::allowed_methods(request.uri().path());
        request.extensions_mut().insert(context.clone());
        // What is shared between requests is immutable or a counter, so nothing is left half done by a panic.
        let answer = AssertUnwindSafe((self.routes)(request)).catch_unwind().await;
        let Ok(Ok(response)) = answer else {
            tracing::error!(request_id = context.request_id(), path = context.path(), "a handler panicked");
            return refuse(context, ApiError::internal("internal error"));
        };
        match response.extensions().get() {
            None => response,
            Some(Unmatched::Path) => refuse(context, ApiError::not_found("not found")),
            Some(Unmatched::Method) => refuse(context, ApiError::method_not_allowed(allowed)),
        }
    }
}

impl HttpService for ApiService {
    fn call(&self, request: Request, peer: Peer) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send + '_>> {
        Box::pin(self.serve(request, peer))
    }
}

fn preflight() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Cors::mark_preflight(response.headers_mut());
    response
}

/// Headers of every answer.
fn mark(headers: &mut HeaderMap, context: &Context) {
    headers.insert(REQUEST_ID, context.request_id_header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !paths::is_open(context.path()) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// One line of the access log, written when the request is over, however it ends.
struct AccessRecord<'a> {
    api: &'a Api,
    context: Arc<Context>,
    method: Method,
    begun: Instant,
    status: StatusCode,
}

impl<'a> AccessRecord<'a> {
    fn new(api: &'a Api, context: &Arc<Context>, method: Method) -> Self {
        // What stays when the client is gone before there is an answer: the word that proxies have for it.
        let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        Self { api, context: context.clone(), method, begun: Instant::now(), status }
    }
}

impl Drop for AccessRecord<'_> {
    fn drop(&mut self) {
        tracing::info!(
            method = %self.method,
            path = self.context.path(),
            status = self.status.as_u16(),
            duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            request_id = self.context.request_id(),
            token = self.api.token(&self.context).map(|token| &*token.label),
            remote = %self.context.peer.remote,
            "request"
        );
    }
}
