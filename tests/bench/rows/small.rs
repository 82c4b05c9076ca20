//! Small JSON in, small JSON out: what P2 and P5 send, and a function that takes it in the shape AWS gives it.

use bytes::Bytes;

use crate::{
    Result,
    bench::Bench,
    floor::Front,
    load::{Body, Expected, Load, post},
    node::{Node, Project},
};

const CODE: &str = "\
import json

def handler(event, context):
    order = json.loads(event['body'])
    return {'item': order['item'], 'total': order['quantity'] * 3, 'note': order['note']}
";

/// A node with the function warm, and its load.
pub(super) async fn node(bench: &Bench, connections: usize) -> Result<(Node, Load)> {
    // as many warm ones as may run at once, so that no start is within what is measured
    let warm = 2 * std::thread::available_parallelism()?.get();
    let config = format!(
        "[functions.small]\nruntime = \"python\"\nconcurrency = {warm}\nwarm = {warm}\n\n\
         [triggers.small]\nhttp = \"POST /call\"\nlog = \"full\"\nto = \"small\"\n"
    );
    let (node, _) = Project::new(bench, &[("small", CODE)], &config)?.start().await?;
    let expected = format!(r#"{{"item":"apple","total":9,"note":"{}"}}"#, note());
    let load = node.load(connections, "/call", &request(), answer(expected.into()));
    node.warm(&load, warm).await?;
    Ok((node, load))
}

/// The same load on the floor, which echoes.
pub(super) fn floor(front: &Front, connections: usize) -> Load {
    let request = request();
    let expected = answer(request.clone());
    Load { address: front.address, connections, request: post(front.address, "/call", &request), expected }
}

fn request() -> Bytes {
    format!(r#"{{"item":"apple","quantity":3,"note":"{}"}}"#, note()).into()
}

fn note() -> String {
    "leave it at the door ".repeat(12)
}

fn answer(body: Bytes) -> Expected {
    Expected { status: 200, body: Body::Is(body) }
}
