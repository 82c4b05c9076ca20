//! `fnbus bench pool`: keep-alive policies on a trace of calls.

use std::{fs, path::PathBuf, process::ExitCode};

use bus::log::usage::{self, FunctionUsage};
use clap::value_parser;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use runtimes::{
    policy::cost_window::Prices,
    trial::{
        App, Call, Contender, Tally, Trace, replay,
        synthetic::{self, MOST_APP_DAYS, Recipe},
    },
};
use serde::Serialize;

use super::plot;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Pool {
    /// What the trace is made from
    #[arg(long, default_value_t = 42, value_name = "N")]
    seed: u64,
    /// How many apps it has
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = value_parser!(u64).range(1..=10_000))]
    apps: u64,
    /// How many days it goes on
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = value_parser!(u64).range(1..=365))]
    days: u64,
    /// Calls take time and apps differ in memory, as drawn; else neither, as policies are compared in the literature
    #[arg(long)]
    drawn: bool,
    /// The calls in the event log of the node instead of a trace that is made; it need not run
    #[arg(long, conflicts_with_all = ["seed", "apps", "days", "drawn"])]
    log: bool,
    /// Draw cold starts over memory, with each policy at several settings, as a page
    #[arg(long, value_name = "FILE.html")]
    plot: Option<PathBuf>,
    /// One JSON object per policy
    #[arg(long)]
    json: bool,
}

/// A policy, its settings, and what it cost: shares in percent, ratios to fixed ten minutes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    pub(super) policy: &'static str,
    pub(super) setting: String,
    invocations: u64,
    cold_starts: u64,
    pub(super) cold_percent: f64,
    cold_ratio: Option<f64>,
    cold_seconds: f64,
    idle_ratio: Option<f64>,
    pub(super) memory_ratio: Option<f64>,
    prewarm_starts: u64,
    app_cold_p50: f64,
    app_cold_p75: f64,
    app_cold_p90: f64,
    always_cold_percent: f64,
    /// The settings that are compared; the others are for the plot.
    #[serde(skip)]
    pub(super) is_chosen: bool,
}

const TEN: Contender = Contender::Fixed { minutes: 10.0 };

impl Pool {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let (trace, what) = if self.log { logged(global)? } else { self.made()? };
        let lines = compare(&trace, self.plot.is_some());
        if self.json {
            lines.iter().try_for_each(show::json)?;
        } else {
            table(&lines)?;
        }
        if let Some(path) = &self.plot {
            let write = |source| Failure::Write { path: path.clone(), source };
            fs::write(path, plot::page(&lines, &what)).map_err(write)?;
            terminal::talk(format_args!("{}", path.display()));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn made(&self) -> Result<(Trace, String), Failure> {
        let &Self { seed, apps, days, drawn, .. } = self;
        if apps * days > MOST_APP_DAYS {
            return Err(Failure::TraceTooLong { apps, days, most: MOST_APP_DAYS });
        }
        let bar = bar("making the trace", apps);
        let trace = synthetic::trace(Recipe { seed, apps, days, drawn }, |done| bar.set_position(done));
        bar.finish_and_clear();
        if trace.apps.is_empty() {
            return Err(Failure::TraceEmpty);
        }
        let what = format!("{}, {days} days, seed {seed}", described(&trace, "apps"));
        terminal::talk(&what);
        Ok((trace, what))
    }
}

fn described(trace: &Trace, of: &str) -> String {
    format!("{} calls of {} {of}", HumanCount(trace.calls() as u64), HumanCount(trace.apps.len() as u64))
}

fn bar(what: &str, steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{msg:28} {bar:40} {human_pos}/{human_len} {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what.to_owned())
}

/// What an instance of a function is taken to hold, in MB: the log does not say. A small Python or Node.js function.
const LOGGED_MEMORY: f64 = 40.0;

/// The trace of the node's own log.
fn logged(global: &Global) -> Result<(Trace, String), Failure> {
    let data = global.client()?.data().to_owned();
    let bar = bar("reading the log", 1);
    let functions = usage::functions(&data, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let functions = functions?;
    let Some(begin) = functions.iter().filter_map(|function| Some(function.calls.first()?.started)).min() else {
        return Err(Failure::NothingLogged { data });
    };
    let end = functions.iter().flat_map(|function| &function.calls).map(|call| call.started + call.took).max();
    // a function of which no start is in the log starts as the others do
    let starts: Vec<f64> = functions.iter().filter_map(FunctionUsage::start_seconds).collect();
    let usual = if starts.is_empty() { 0.1 } else { starts.iter().sum::<f64>() / starts.len() as f64 };
    let seconds = |micros: i64| micros as f64 / 1e6;
    let app = |function: &FunctionUsage| App {
        start: function.start_seconds().unwrap_or(usual),
        memory: LOGGED_MEMORY,
        calls: function
            .calls
            .iter()
            .map(|call| Call { at: seconds(call.started - begin), took: seconds(call.took) })
            .collect(),
    };
    let trace = Trace { apps: functions.iter().map(app).collect(), seconds: seconds(end.unwrap_or(begin) - begin) };
    let what = format!("{} in the event log, {:.1} days", described(&trace, "functions"), trace.seconds / 86_400.0);
    terminal::talk(&what);
    Ok((trace, what))
}

/// What is replayed; with `curves` each policy at several settings.
fn contenders(curves: bool) -> Vec<Contender> {
    let ours = Prices::default();
    let mut all = vec![TEN, Contender::Hybrid, Contender::GreedyDual { share: 1.0 }, Contender::CostWindow(ours)];
    if curves {
        all.extend([5.0, 20.0, 60.0, 240.0].map(|minutes| Contender::Fixed { minutes }));
        all.extend([0.5, 0.75, 1.25, 1.5].map(|share| Contender::GreedyDual { share }));
        all.extend(
            [4.0, 2.0, 0.5, 0.25].map(|times| Contender::CostWindow(Prices { memory: times * ours.memory, ..ours })),
        );
    }
    all
}

fn compare(trace: &Trace, curves: bool) -> Vec<Line> {
    let all = contenders(curves);
    let chosen = contenders(false).len();
    let apps = trace.apps.len() as u64;
    let bar = bar("", apps * all.len() as u64);
    let run = |n: usize, contender| {
        bar.set_message(words(contender).0);
        replay(trace, contender, |done| bar.set_position(n as u64 * apps + done))
    };
    let tallies: Vec<Tally> = all.iter().enumerate().map(|(n, &contender)| run(n, contender)).collect();
    bar.finish_and_clear();
    let line = |(n, tally)| line(all[n], tally, &tallies[0], n < chosen);
    tallies.iter().enumerate().map(line).collect()
}

fn words(contender: Contender) -> (&'static str, String) {
    match contender {
        Contender::Fixed { minutes } => ("fixed", format!("{minutes} min")),
        Contender::Hybrid => ("hybrid", "4 h".to_owned()),
        Contender::GreedyDual { share } => ("greedy-dual", format!("{share} x memory")),
        Contender::CostWindow(Prices { memory, gap }) => ("cost-window", format!("price {memory:e}, gap {gap} s")),
    }
}

fn line(contender: Contender, tally: &Tally, ten: &Tally, is_chosen: bool) -> Line {
    let rounded = |number: f64| (number * 1e4).round() / 1e4;
    let ratio = |value: f64, floor: f64| (floor > 0.0).then(|| rounded(value / floor));
    let percent = |share: f64| rounded(100.0 * share);
    let (policy, setting) = words(contender);
    Line {
        policy,
        setting,
        invocations: tally.calls,
        cold_starts: tally.cold,
        cold_percent: percent(tally.cold_share()),
        cold_ratio: ratio(tally.cold as f64, ten.cold as f64),
        cold_seconds: rounded(tally.waited),
        idle_ratio: ratio(tally.idle, ten.idle),
        memory_ratio: ratio(tally.idle_memory, ten.idle_memory),
        prewarm_starts: tally.prewarmed,
        app_cold_p50: percent(tally.app_share(0.5)),
        app_cold_p75: percent(tally.app_share(0.75)),
        app_cold_p90: percent(tally.app_share(0.9)),
        always_cold_percent: percent(tally.always_cold()),
        is_chosen,
    }
}

fn table(lines: &[Line]) -> Result<(), Failure> {
    let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"));
    let rows = lines.iter().map(|line| {
        vec![
            line.policy.to_owned(),
            line.setting.clone(),
            line.cold_starts.to_string(),
            format!("{:.3} %", line.cold_percent),
            times(line.cold_ratio),
            times(line.memory_ratio),
            line.prewarm_starts.to_string(),
            format!("{:.1} %", line.app_cold_p50),
            format!("{:.1} %", line.app_cold_p75),
            format!("{:.1} %", line.always_cold_percent),
        ]
    });
    let headers = [
        "POLICY",
        "SETTING",
        "COLD",
        "OF CALLS",
        "RATIO",
        "IDLE MEMORY",
        "PRE-WARMED",
        "APP P50",
        "APP P75",
        "ALWAYS COLD",
    ];
    Ok(show::table(&headers, rows)?)
}
