//! P16: how soon a node answers, with an empty log and with a long one.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, params};

use super::Spec;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::Meter,
    floor::Server,
    node::Project,
    row::{Figure, Noise, Row, Target},
    turns::median,
};

pub(super) const SPEC: Spec = Spec {
    id: "P16",
    work: "fnbus up to ready, with an empty log and with one of 1 M events",
    measure: |bench| Box::pin(measure(bench)),
};

const CONFIG: &str = "\
[functions.first]
runtime = \"python\"

[triggers.first]
http = \"POST /first\"
mode = \"async\"
to = \"first\"
";
const CODE: &str = "def handler(event, context):\n    return None\n";

async fn measure(bench: &Bench) -> Result<Row> {
    let rounds = bench.pick(7, 2);
    let events = bench.pick(1_000_000, 20_000);
    let bar = bench.progress(SPEC.id, rounds);
    bar.set_message(format!("writing {events} events"));
    let (node, _) = Project::new(bench, &[("first", Code::Python(CODE))], CONFIG)?.start().await?;
    let mut long = node.stop();
    fill(&long.log(), events)?;

    let meter = Meter::start(&[std::process::id()])?;
    let (mut floor, mut empty, mut full) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        floor.push(milliseconds(Server::start(bench).await?.took));
        let (node, took) = Project::new(bench, &[("first", Code::Python(CODE))], CONFIG)?.start().await?;
        empty.push(milliseconds(took));
        drop(node);
        let (node, took) = long.start().await?;
        full.push(milliseconds(took));
        long = node.stop();
        bar.set_message(format!("{:.0} ms, long log {:.0} ms", empty[empty.len() - 1], full[full.len() - 1]));
        bar.inc(1);
    }
    bar.finish();
    let mut noise = Noise::default();
    noise.worse(&meter.stop()?);
    let floor = median(floor);
    let figure = |what, value, target| Figure { what, value, unit: "ms", floor: Some(floor), ratio: None, target };
    let (empty, full) = (median(empty), median(full));
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![
            figure("empty log", empty, Target::AtMost(300.0)),
            figure("long log", full, Target::AtMost(1000.0)),
        ],
        cpu_ms_per_unit: None,
        floor_cpu_ms_per_unit: None,
        noise,
        note: format!(
            "log of {events} events; floor: nats-server alone until JetStream answers; {:.1}x and {:.1}x of it",
            empty / floor,
            full / floor
        ),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A history of events that have all been worked off, written past fnbus but in its own tables.
fn fill(log: &Path, events: i64) -> Result<()> {
    let mut log = Connection::open(log)?;
    log.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -64000;")?;
    let transaction = log.transaction()?;
    let now = chrono::Utc::now().timestamp_micros();
    {
        let mut event = transaction.prepare(
            "INSERT INTO event (id, source, type, time, trigger, meta, data, hop, received) \
             VALUES (?1, '/fnbus/first', 'http.request', ?2, 'first', '{}', ?3, 0, ?2)",
        )?;
        let mut delivery = transaction.prepare(
            "INSERT INTO delivery (born, event, target, trigger, format, generation, publication, status, attempts, ended) \
             VALUES (?1, ?2, 'first', 'first', 1, 0, 1, 10, 1, ?3)",
        )?;
        let mut attempt = transaction.prepare(
            "INSERT INTO attempt (id, born, node, version, started, run_us, cold, outcome, output, ended) \
             VALUES (?1, ?2, 'bench', 'bench', ?3, 100, 0, 'ok', ?4, ?3)",
        )?;
        let body = [b'x'; 256];
        for n in 0..events {
            let time = now - (events - n) * 1000;
            let id = uuid::Builder::from_unix_timestamp_millis((time / 1000) as u64, &salt(n)).into_uuid();
            event.execute(params![id.as_bytes(), time, &body[..]])?;
            let row = transaction.last_insert_rowid();
            delivery.execute(params![(time / 1000) << 12, row, time])?;
            attempt.execute(params![
                transaction.last_insert_rowid() << 12 | 1,
                (time / 1000) << 12,
                time,
                &b"null"[..]
            ])?;
        }
    }
    transaction.commit()?;
    log.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

/// What tells ids of one millisecond apart.
fn salt(n: i64) -> [u8; 10] {
    let mut salt = [0; 10];
    salt[2..].copy_from_slice(&n.to_be_bytes());
    salt
}
