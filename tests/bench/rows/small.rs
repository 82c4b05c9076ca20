//! Small JSON in, small JSON out: what P1 to P5 send, and functions that take it in the shape AWS gives it.

use bytes::Bytes;

use crate::{
    Result,
    bench::Bench,
    code::Code,
    floor::Front,
    load::{Body, Expected, Load, post},
    node::{Node, Project},
};

pub(super) const PYTHON: Code<'_> = Code::Python(
    "\
import json

def handler(event, context):
    order = json.loads(event['body'])
    return {'item': order['item'], 'total': order['quantity'] * 3, 'note': order['note']}
",
);

pub(super) const NODE: Code<'_> = Code::Node(
    "\
exports.handler = async (event) => {
  const order = JSON.parse(event.body)
  return { item: order.item, total: order.quantity * 3, note: order.note }
}
",
);

/// A node with the function warm, and its load.
pub(super) async fn node(bench: &Bench, code: Code<'_>, connections: usize) -> Result<(Node, Load)> {
    // as many warm ones as may run at once, so that no start is within what is measured
    let warm = 2 * std::thread::available_parallelism()?.get();
    let runs = match code {
        Code::Wasm => 0,
        _ => warm,
    };
    let keys = if runs > 0 { format!("warm = {runs}\n") } else { String::new() };
    let config = config(code, &format!("concurrency = {warm}\n{keys}"));
    let (node, _) = Project::new(bench, &[("small", code)], &config)?.start().await?;
    let load = load(&node, code, connections);
    node.warm(&load, runs + stays(code)).await?;
    Ok((node, load))
}

/// The function with some keys, and its trigger.
pub(super) fn config(code: Code<'_>, keys: &str) -> String {
    // a program gets the request as it came, all others in the shape AWS gives it
    let payload = match code {
        Code::Wasm => "payload = \"body\"\n",
        _ => "",
    };
    format!(
        "[functions.small]\nruntime = \"{}\"\n{keys}\n\
         [triggers.small]\nhttp = \"POST /call\"\n{payload}log = \"full\"\nto = \"small\"\n",
        code.runtime()
    )
}

/// Processes that stay though no instance is there: of Node.js two that wait for whatever needs one, of Python the one
/// that has loaded the function.
pub(super) fn stays(code: Code<'_>) -> usize {
    match code {
        // of Python the zygote, and what it has forked ahead
        Code::Node(_) | Code::Python(_) => 2,
        Code::Native | Code::Wasm => 0,
    }
}

/// What is sent to `POST /call` of a node, and what such a function answers.
pub(super) fn load(node: &Node, code: Code<'_>, connections: usize) -> Load {
    let expected = match code {
        // it echoes, as the floor does
        Code::Native | Code::Wasm => request(),
        Code::Python(_) | Code::Node(_) => format!(r#"{{"item":"apple","total":9,"note":"{}"}}"#, note()).into(),
    };
    node.load(connections, "/call", &request(), answer(expected))
}

/// The same load on the floor, which echoes.
pub(super) fn floor(front: &Front, connections: usize) -> Load {
    let request = request();
    let expected = answer(request.clone());
    Load { address: front.address, connections, request: post(front.address, "/call", &request), expected }
}

pub(super) fn request() -> Bytes {
    format!(r#"{{"item":"apple","quantity":3,"note":"{}"}}"#, note()).into()
}

fn note() -> String {
    "leave it at the door ".repeat(12)
}

fn answer(body: Bytes) -> Expected {
    Expected { status: 200, body: Body::Is(body) }
}
