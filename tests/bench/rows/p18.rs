//! P18: a function that is being flooded, next to one that is not.
//!
//! Both are Python functions whose handler waits, as for a database. The flooded one is called over more connections than
//! it has instances, and given a backlog that outlasts the round, through the same server, log, worker and instances'
//! machine. The quiet one gets a call now and then, and an event now and then. Its floor is itself in the rounds between.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Spec;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::Meter,
    histogram::Histogram,
    load::{Body, Connection, Expected, Pace, Until, post},
    node::{Node, Project, accepted},
    row::{Figure, Row, Target},
    turns::{Turn, Turns, median},
};

pub(super) const SPEC: Spec = Spec {
    id: "P18",
    work: "a quiet Python function, p99 of its calls and of its events, while another one is being flooded",
    measure: |bench| Box::pin(measure(bench)),
};

const CODE: &str = "\
import time

def handler(event, context):
    time.sleep(0.005)
    return {'ok': True}
";
/// Connections that call the flooded function, each as soon as it is answered.
const CONNECTIONS: usize = 32;
/// Deliveries it is given at the beginning of a round, for each second of it: more than it can run.
const BACKLOG: usize = 2000;
/// Between two calls, and two events, of the quiet one.
const PACE: Duration = Duration::from_millis(10);
/// A backlog may take this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A round: calls and events of the quiet function.
struct Round {
    calls: Turn,
    events: Histogram,
}

async fn measure(bench: &Bench) -> Result<Row> {
    let node = start(bench).await?;
    let bar = bench.progress(SPEC.id, bench.rounds() * 2);
    let (mut turns, mut events) = (Turns::default(), Vec::new());
    let (mut calls, mut worked) = (0, 0);
    for _ in 0..bench.rounds() {
        let alone = round(bench, &node).await?;
        bar.inc(1);
        let flood = Flood::begin(bench, &node).await?;
        let flooded = round(bench, &node).await?;
        let (called, ran) = flood.end(&node).await?;
        (calls, worked) = (calls + called, worked + ran);
        bar.inc(1);
        bar.set_message(format!("p99 {:.1} ms, alone {:.1} ms", flooded.calls.p99, alone.calls.p99));
        events.push((flooded.events.quantile(0.99), alone.events.quantile(0.99)));
        turns.add(alone.calls, flooded.calls);
    }
    bar.finish();
    let (p99, floor_p99, ratio) = turns.medians(|turn| turn.p99);
    let (p50, floor_p50, _) = turns.medians(|turn| turn.p50);
    let of = |pick: fn(&(f64, f64)) -> f64| median(events.iter().map(pick).collect());
    let figure = |what, value, floor, ratio| Figure {
        what,
        value,
        unit: "ms",
        floor: Some(floor),
        ratio: Some(ratio),
        target: Target::AtMost(2.0),
    };
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![
            figure("calls, p99", p99, floor_p99, ratio),
            figure("events, accepted to ended, p99", of(|e| e.0), of(|e| e.1), of(|e| e.0 / e.1)),
        ],
        cpu_ms_per_unit: None,
        floor_cpu_ms_per_unit: None,
        noise: turns.noise,
        note: format!(
            "floor: the same function alone, in the rounds between; its handler waits 5 ms; p50 of calls {p50:.1} ms, alone \
             {floor_p50:.1} ms; meanwhile {calls} calls and {worked} deliveries of the flooded one"
        ),
    })
}

async fn start(bench: &Bench) -> Result<Node> {
    let table = |name: &str| {
        format!(
            "[functions.{name}]\nruntime = \"python\"\nwarm = 1\n\n\
             [triggers.{name}-call]\nhttp = \"POST /{name}/call\"\nto = \"{name}\"\n\n\
             [triggers.{name}-later]\nhttp = \"POST /{name}/later\"\nmode = \"async\"\nto = \"{name}\"\n\n"
        )
    };
    let config = ["quiet", "flooded"].map(table).concat();
    let functions = ["quiet", "flooded"].map(|name| (name, Code::Python(CODE)));
    let (node, _) = Project::new(bench, &functions, &config)?.start().await?;
    node.deployed(2, Instant::now()).await?;
    Ok(node)
}

/// The quiet function's part of a round.
async fn round(bench: &Bench, node: &Node) -> Result<Round> {
    let until = Until::After(bench.round());
    let ok = Expected { status: 200, body: Body::Is(r#"{"ok":true}"#.into()) };
    let (calls, later) = (node.load(1, "/quiet/call", b"{}", ok), node.load(1, "/quiet/later", b"{}", accepted()));
    let before: i64 = node.log()?.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.get(0))?;
    let meter = Meter::start(&[node.id()])?;
    let (calls, sent) = tokio::try_join!(calls.fire(until, Pace::Every(PACE)), later.fire(until, Pace::Every(PACE)))?;
    let calls = Turn::of(&calls, meter.stop()?);
    Ok(Round { calls, events: ended(node, before, sent.latencies.count() as usize).await? })
}

/// How long each of the events took that were accepted for the quiet function since, once all have ended.
async fn ended(node: &Node, since: i64, count: usize) -> Result<Histogram> {
    let begun = Instant::now();
    loop {
        let log = node.log()?;
        let mut statement = log.prepare(
            "SELECT a.ended - e.received FROM event e JOIN delivery d ON d.event = e.seq \
             JOIN attempt a ON a.id >> 12 = d.seq \
             WHERE e.seq > ?1 AND e.trigger = 'quiet-later' AND d.status = 10 AND a.outcome = 'ok'",
        )?;
        let took =
            statement.query_map([since], |row| row.get::<_, i64>(0))?.collect::<std::result::Result<Vec<_>, _>>()?;
        if took.len() == count {
            let mut histogram = Histogram::default();
            for us in took {
                histogram.record(Duration::from_micros(us.unsigned_abs()));
            }
            return Ok(histogram);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("of {count} events of the quiet function {} have ended", took.len()).into());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// More than the other function can take.
struct Flood {
    tasks: TaskTracker,
    calls: Arc<AtomicUsize>,
    over: CancellationToken,
    backlog: usize,
    begun: i64,
}

impl Flood {
    async fn begin(bench: &Bench, node: &Node) -> Result<Self> {
        let begun = done(node)?;
        let backlog = (bench.round().as_secs_f64() * BACKLOG as f64) as usize;
        node.accept(backlog, "/flooded/later", b"{}").await?;
        let (tasks, calls, over) = (TaskTracker::new(), Arc::<AtomicUsize>::default(), CancellationToken::new());
        let (address, request) = (node.address(), post(node.address(), "/flooded/call", b"{}"));
        for _ in 0..CONNECTIONS {
            let (request, calls, over) = (request.clone(), calls.clone(), over.clone());
            let mut connection = Connection::open(address).await?;
            tasks.spawn(async move {
                // answered or refused, the next one follows
                while !over.is_cancelled() && connection.exchange(&request).await.is_ok() {
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tasks.close();
        Ok(Self { tasks, calls, over, backlog, begun })
    }

    /// Ends it, and waits until all of it has been worked off. Calls and deliveries that had ended before.
    async fn end(self, node: &Node) -> Result<(usize, usize)> {
        let worked = done(node)? - self.begun;
        self.over.cancel();
        self.tasks.wait().await;
        let begun = Instant::now();
        while done(node)? - self.begun < self.backlog as i64 {
            if begun.elapsed() > PATIENCE {
                return Err("the backlog of the flooded function was not worked off".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok((self.calls.load(Ordering::Relaxed), worked as usize))
    }
}

/// Deliveries of the flooded function that are done.
fn done(node: &Node) -> Result<i64> {
    let sql = "SELECT count(*) FROM delivery WHERE target = 'flooded' AND status = 10";
    Ok(node.log()?.query_row(sql, [], |row| row.get(0))?)
}
