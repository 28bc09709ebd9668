//! `ductile pipeline`: the pipelines of a configuration, read from its files, with or without a running gateway.

mod drawing;
mod graph;
mod list;
mod rehearse;
mod show;
mod tree;
mod yaml;

use std::sync::Arc;

use clap::Subcommand;
use ductile_config::{CheckReport, Pipeline, PipelineReport, Pipelines, Trigger, draft};
use ductile_model::Problem;

use super::args::Common;
use super::config;
use super::report::{self, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// All pipelines: what starts them, how they run, how large they are
    #[command(
        after_help = "Example:\n  ductile pipeline list --config ./config --json\n\nExit codes: 0 shown, 1 anything else."
    )]
    List,
    /// One pipeline: its definition, and the routes that it compiles to
    #[command(
        after_help = "Example:\n  ductile pipeline show article\n\nExit codes: 0 shown, 1 no such pipeline, or anything else."
    )]
    Show {
        /// Name of the pipeline
        name: String,
    },
    /// Everything that is wrong with pipelines and routes; or what one would make of an event
    #[command(
        alias = "check",
        alias = "dry-run",
        long_about = "Without a name: everything that is wrong with pipelines and routes, and what is worth a look. With one: what the \
                      pipeline would make of an event, whether it would start, which jobs it would queue with which context and \
                      payload, and which way its first conditions lead. Nothing is run, and neither a gateway nor a database is needed.",
        after_help = "Examples:\n  ductile pipeline validate --config ./config\n  ductile pipeline validate article -f url=https://example.org -f words=350\n  ductile pipeline validate article --body '{\"words\": 3}' --from-plugin inbox --json\n\nExit codes: 0 valid, or the event would start it; 1 invalid, it would not, or a job would fail at once."
    )]
    Validate(rehearse::Arguments),
    /// One pipeline as a graph
    #[command(
        alias = "visualize",
        after_help = "Examples:\n  ductile pipeline graph article\n  ductile pipeline graph article --format dot | dot -Tsvg > article.svg\n\nExit codes: 0 shown, 1 no such pipeline, or anything else."
    )]
    Graph {
        /// Name of the pipeline
        name: String,
        /// Form of the graph [default: text on a terminal, else mermaid]
        #[arg(long, value_enum)]
        format: Option<graph::Format>,
    },
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    match action {
        Action::List => {
            let all = compiled(common)?;
            list::run(&all, common)
        }
        Action::Show { name } => {
            let all = compiled(common)?;
            show::run(find(&all, &name)?, &all, common)
        }
        Action::Validate(arguments) => match arguments.name() {
            Some(name) => rehearse::run(name, &arguments, common),
            None => Ok(validate(common)),
        },
        Action::Graph { name, format } => {
            let all = compiled(common)?;
            graph::run(find(&all, &name)?, &all, format, common)
        }
    }
}

/// Compiles what the files say.
fn compile(common: &Common) -> Result<PipelineReport, Vec<Problem>> {
    let environment = crate::environment();
    let source = common.locate(&environment).map_err(|problem| vec![problem])?;
    if common.verbose {
        report::note(format_args!("configuration: {} ({})", source.root_file.display(), source.kind.as_str()));
    }
    Ok(draft(&source, &environment).map_err(|refusal| refusal.problems)?.compile())
}

/// The pipelines, when all of them are right.
fn compiled(common: &Common) -> Result<Arc<Pipelines>, Failure> {
    let refused = |what: &str, problems: &[Problem]| {
        let causes: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Failure::config(format!("{what}:{}", causes.concat()))
    };
    let report = compile(common).map_err(|problems| refused("the configuration does not load", &problems))?;
    if !report.errors.is_empty() {
        return Err(refused("the pipelines do not compile", &report.errors));
    }
    if common.verbose {
        report.warnings.iter().for_each(|warning| report::note(format_args!("warning: {warning}")));
    }
    Ok(report.pipelines)
}

fn find<'p>(all: &'p Pipelines, name: &str) -> Result<&'p Pipeline, Failure> {
    all.get(name).ok_or_else(|| {
        let near =
            all.iter().map(|pipeline| &*pipeline.name).find(|known| strsim::damerau_levenshtein(name, known) <= 2);
        let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        Failure::missing(format!("pipeline {name:?} not found{hint}"))
    })
}

fn validate(common: &Common) -> u8 {
    let checked = match compile(common) {
        Ok(report) => CheckReport { errors: report.errors, warnings: report.warnings },
        Err(errors) => CheckReport { errors, warnings: Vec::new() },
    };
    config::tell("Pipelines", &checked, common);
    u8::from(!checked.errors.is_empty())
}

/// What starts a pipeline, in one word.
fn trigger(pipeline: &Pipeline) -> String {
    match &pipeline.trigger {
        Trigger::Event(event) => event.to_string(),
        Trigger::Hook(signal) => format!("hook:{}", signal.as_str()),
    }
}

/// Cap of the depth, for people.
fn depth(pipeline: &Pipeline) -> String {
    pipeline.depth_limit().map_or_else(|| "unlimited".to_owned(), |depth| depth.to_string())
}
