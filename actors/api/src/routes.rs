//! The routes. Matching is all that may reject here; whatever comes after is an answer.

use std::convert::Infallible;
use std::sync::Arc;

use http::StatusCode;
use warp::filters::BoxedFilter;
use warp::reject::Rejection;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use crate::body;
use crate::context::Context;
use crate::handlers::trigger::Target;
use crate::handlers::{catalogue, health, intervene, jobs, pipeline, reload, schedules, topology, trigger};
use crate::paths::decode;
use crate::reply::respond;
use crate::state::Api;

/// Marks a response that no route gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmatched {
    /// No route has this path.
    Path,
    /// A route has this path, but not this method.
    Method,
}

/// All routes of the API.
pub(crate) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    // The busiest route stands alone in front: a request for it passes no other filter.
    let others = open(api)
        .or(catalogue_routes(api))
        .unify()
        .boxed()
        .or(pipeline(api))
        .unify()
        .boxed()
        .or(run(api))
        .unify()
        .boxed()
        .or(job_routes(api))
        .unify()
        .boxed()
        .or(intervention_routes(api))
        .unify()
        .boxed()
        .or(system(api))
        .unify()
        .boxed();
    command(api).or(others).unify().boxed().recover(unmatched).unify().boxed()
}

fn with(api: &Arc<Api>) -> impl Filter<Extract = (Arc<Api>,), Error = Infallible> + Clone + use<> {
    let api = api.clone();
    warp::any().map(move || api.clone())
}

fn context() -> impl Filter<Extract = (Arc<Context>,), Error = Rejection> + Copy {
    warp::ext::get::<Arc<Context>>()
}

fn command(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("plugin" / String / String)
        .and(warp::post())
        .and(with(api))
        .and(context())
        .and(warp::body::stream())
        .then(|plugin, command, api: Arc<Api>, context: Arc<Context>, body| async move {
            let target = Target::Command { plugin: decode(plugin), command: decode(command) };
            respond(&context, trigger::trigger(&api, &context, target, body).await)
        })
        .boxed()
}

fn pipeline(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("pipeline" / String)
        .and(warp::post())
        .and(with(api))
        .and(context())
        .and(warp::body::stream())
        .then(|name, api: Arc<Api>, context: Arc<Context>, body| async move {
            respond(&context, pipeline::start(&api, &context, &decode(name), body).await)
        })
        .boxed()
}

fn run(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("plugins" / String / "run")
        .and(warp::post())
        .and(with(api))
        .and(context())
        .and(warp::body::stream())
        .then(|plugin, api: Arc<Api>, context: Arc<Context>, body| async move {
            let target = Target::Run { plugin: decode(plugin) };
            respond(&context, trigger::trigger(&api, &context, target, body).await)
        })
        .boxed()
}

fn open(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let get_or_head = || warp::get().or(warp::head()).unify();
    let root = warp::path::end()
        .and(get_or_head())
        .and(with(api))
        .and(context())
        .map(|api: Arc<Api>, context: Arc<Context>| respond(&context, health::root(&api)))
        .boxed();
    let healthz =
        warp::path!("healthz")
            .and(get_or_head())
            .and(with(api))
            .and(context())
            .then(|api: Arc<Api>, context: Arc<Context>| async move {
                respond(&context, health::health(&api, &context).await)
            })
            .boxed();
    let readyz = warp::path!("readyz")
        .and(get_or_head())
        .and(with(api))
        .and(context())
        .then(|api: Arc<Api>, context: Arc<Context>| async move { respond(&context, health::ready(&api).await) })
        .boxed();
    healthz.or(readyz).unify().boxed().or(root).unify().boxed()
}

fn catalogue_routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("plugins")
        .and(warp::get())
        .and(with(api))
        .and(context())
        .map(|api: Arc<Api>, context: Arc<Context>| respond(&context, catalogue::list(&api, &context)))
        .boxed();
    let show = warp::path!("plugin" / String)
        .and(warp::get())
        .and(with(api))
        .and(context())
        .map(|plugin, api: Arc<Api>, context: Arc<Context>| {
            respond(&context, catalogue::show(&api, &context, &decode(plugin)))
        })
        .boxed();
    let topology = warp::path!("topology")
        .and(warp::get())
        .and(with(api))
        .and(context())
        .map(|api: Arc<Api>, context: Arc<Context>| respond(&context, topology::show(&api, &context)))
        .boxed();
    list.or(show).unify().boxed().or(topology).unify().boxed()
}

fn job_routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let show = warp::path!("job" / String)
        .and(warp::get())
        .and(with(api))
        .and(context())
        .then(|id, api: Arc<Api>, context: Arc<Context>| async move {
            respond(&context, jobs::show(&api, &context, &decode(id)).await)
        })
        .boxed();
    let list = warp::path!("jobs")
        .and(warp::get())
        .and(with(api))
        .and(context())
        .then(|api: Arc<Api>, context: Arc<Context>| async move { respond(&context, jobs::list(&api, &context).await) })
        .boxed();
    let tree = warp::path!("job" / String / "tree")
        .and(warp::get())
        .and(with(api))
        .and(context())
        .then(|id, api: Arc<Api>, context: Arc<Context>| async move {
            respond(&context, jobs::tree(&api, &context, &decode(id)).await)
        })
        .boxed();
    let scheduled =
        warp::path!("scheduler" / "jobs")
            .and(warp::get())
            .and(with(api))
            .and(context())
            .then(|api: Arc<Api>, context: Arc<Context>| async move {
                respond(&context, schedules::list(&api, &context).await)
            })
            .boxed();
    show.or(list).unify().boxed().or(tree).unify().boxed().or(scheduled).unify().boxed()
}

fn intervention_routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let cancel = warp::path!("job" / String / "cancel")
        .and(warp::post())
        .and(with(api))
        .and(context())
        .and(warp::body::stream())
        .then(|id, api: Arc<Api>, context: Arc<Context>, stream| async move {
            let answer = async {
                intervene::admit(&api, &context)?;
                let body = body::read(&context, api.plan.config.api.max_body_size, stream).await?;
                intervene::cancel(&api, &context, &decode(id), &body).await
            };
            respond(&context, answer.await)
        })
        .boxed();
    let retry = warp::path!("job" / String / "retry")
        .and(warp::post())
        .and(with(api))
        .and(context())
        .and(warp::body::stream())
        .then(|id, api: Arc<Api>, context: Arc<Context>, stream| async move {
            let answer = async {
                intervene::admit(&api, &context)?;
                body::read(&context, api.plan.config.api.max_body_size, stream).await?;
                intervene::retry(&api, &context, &decode(id)).await
            };
            respond(&context, answer.await)
        })
        .boxed();
    let retry_many = warp::path!("jobs" / "retry")
        .and(warp::post())
        .and(with(api))
        .and(context())
        .and(warp::body::stream())
        .then(|api: Arc<Api>, context: Arc<Context>, stream| async move {
            let answer = async {
                intervene::admit(&api, &context)?;
                let body = body::read(&context, api.plan.config.api.max_body_size, stream).await?;
                intervene::retry_many(&api, &body).await
            };
            respond(&context, answer.await)
        })
        .boxed();
    cancel.or(retry).unify().boxed().or(retry_many).unify().boxed()
}

fn system(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("system" / "reload")
        .and(warp::post())
        .and(with(api))
        .and(context())
        .and(warp::body::stream())
        .then(|api: Arc<Api>, context: Arc<Context>, stream| async move {
            let answer = async {
                let actor = reload::admit(&api, &context)?;
                body::read(&context, api.plan.config.api.max_body_size, stream).await?;
                reload::reload(&api, actor).await
            };
            respond(&context, answer.await)
        })
        .boxed()
}

/// The answer to what no route took; its text is written where the request is known.
async fn unmatched(rejection: Rejection) -> Result<Response, Infallible> {
    let (status, mark) = if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        (StatusCode::METHOD_NOT_ALLOWED, Unmatched::Method)
    } else {
        (StatusCode::NOT_FOUND, Unmatched::Path)
    };
    let mut response = warp::reply::with_status(warp::reply(), status).into_response();
    response.extensions_mut().insert(mark);
    Ok(response)
}
