//! What follows from an outcome: pure. The same delivery and outcome give the same events with the same ids, however
//! often they are decided.

use bytes::Bytes;
use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    ambient,
    catalog::Chain,
    event::{Event, MAX_BRANCHES, MAX_HOP, Meta},
    id::{EventId, RowId},
    name::Name,
    outcome::{Ending, Fault, Outcome, error_object},
    pipeline::as_json,
};

/// `type` of the event that carries a function's output.
pub const OUTPUT: &str = "function.output";
/// `type` of the events that carry an invocation record.
pub const SUCCESS: &str = "function.success";
pub const FAILURE: &str = "function.failure";
/// `type` of the events that carry the input of a run's next steps.
pub const STEP: &str = "pipeline.step";

/// Positions of what follows from one delivery; outputs count up from 0.
pub(crate) const RECORD: u32 = u32::MAX;
pub(crate) const PUT: u32 = u32::MAX - 1;

/// The chain has become too long: it is taken for a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopLimit;

/// Whether anything may still follow from an event.
pub fn hops_left(parent: &Event) -> Result<(), HopLimit> {
    if parent.hop >= MAX_HOP { Err(HopLimit) } else { Ok(()) }
}

/// The flow has branched too often: it is taken for an avalanche.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchLimit;

/// Into how many a flow has branched when an event leads to `ways` in place of one. Along every path the product is kept, which
/// bounds the whole: of all events that are as far from the first there are never more than the limit.
pub fn branched(parent: &Event, ways: usize) -> Result<u32, BranchLimit> {
    let ways = u32::try_from(ways.max(1)).map_err(|_| BranchLimit)?;
    parent.branches.checked_mul(ways).filter(|branches| *branches <= MAX_BRANCHES).ok_or(BranchLimit)
}

/// The failure that takes the place of an output of more elements than the flow may branch into; another attempt would end the
/// same. None: it may.
pub fn too_many(parent: &Event, chain: &Chain, outcome: &Outcome) -> Option<Outcome> {
    if !chain.each || chain.then.is_empty() || outcome.ending != Ending::Ok || outcome.shared {
        return None;
    }
    let elements = serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(&outcome.output).ok()?.len();
    branched(parent, elements).err()?;
    let message = format!(
        "the output has {elements} elements, and with `each` there would be more than {MAX_BRANCHES} events beside each other in \
         this flow; pass them on in parts"
    );
    let fault = Fault { retry: false, ..Fault::new("Runtime.TooManyEvents", message) };
    Some(Outcome { ending: Ending::TooLarge, output: error_object(&fault), fault: Some(fault), ..outcome.clone() })
}

/// The events that carry an output: one, or with `each` one for every element of an array. An output that is no
/// array has itself as its only element.
pub fn outputs(parent: &Event, delivery: RowId, source: &str, output: &Bytes, each: bool) -> Vec<Event> {
    let elements = each.then(|| serde_json::from_slice::<Vec<Box<RawValue>>>(output).ok()).flatten();
    match elements {
        Some(elements) => elements
            .iter()
            .zip(0..)
            .map(|(element, n)| follower(parent, delivery, n, source, OUTPUT, element.get().to_owned().into()))
            .collect(),
        None => vec![follower(parent, delivery, 0, source, OUTPUT, output.clone())],
    }
}

/// The event that carries the input of a run's next steps.
pub fn step(parent: &Event, delivery: RowId, source: &str, input: Bytes) -> Event {
    follower(parent, delivery, 0, source, STEP, input)
}

/// The event that an `event:` target puts on the bus: what it got, under another type.
pub fn put(parent: &Event, delivery: RowId, kind: &str) -> Event {
    let mut event = follower(parent, delivery, PUT, &parent.source, kind, parent.data.clone());
    event.datacontenttype.clone_from(&parent.datacontenttype);
    event
}

/// An event that stands in for one whose body was wrong: everything that happened is the same.
pub fn corrected(original: &Event, data: Bytes) -> Event {
    let correlation = Some(original.correlation.clone().unwrap_or_else(|| original.id.clone()));
    Event { id: EventId::new(), causation: Some(original.id.clone()), correlation, data, ..original.clone() }
}

/// The event that carries an invocation record, in the shape AWS Lambda gives its destinations.
pub fn record(parent: &Event, delivery: RowId, function: &Name, source: &str, outcome: &Outcome, ended: &End) -> Event {
    let condition = ended.condition;
    let record = Record {
        version: "1.0",
        timestamp: ambient::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        request_context: Context {
            request_id: delivery.to_string(),
            function_arn: format!("arn:aws:lambda:us-east-1:000000000000:function:{function}"),
            condition,
            approximate_invoke_count: ended.attempts,
        },
        request_payload: as_json(&parent.data),
        response_context: ResponseContext {
            status_code: 200,
            executed_version: &outcome.version,
            function_error: outcome.fault.as_ref().map(|_| "Unhandled"),
        },
        response_payload: as_json(&outcome.output),
    };
    let data = serde_json::to_vec(&record).unwrap_or_default().into();
    let kind = if outcome.fault.is_none() { SUCCESS } else { FAILURE };
    follower(parent, delivery, RECORD, source, kind, data)
}

/// How a delivery came to its end.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// `Success`, `RetriesExhausted` or `EventAgeExceeded`.
    pub condition: &'static str,
    pub attempts: u32,
}

fn follower(parent: &Event, delivery: RowId, position: u32, source: &str, kind: &str, data: Bytes) -> Event {
    let json = serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok();
    let mut event = Event::with_id(EventId::following(parent.time, delivery, position), source, kind, data);
    event.datacontenttype = json.then(|| "application/json".into());
    event.correlation = Some(parent.correlation.clone().unwrap_or_else(|| parent.id.clone()));
    event.causation = Some(parent.id.clone());
    event.hop = parent.hop.saturating_add(1);
    event.branches = parent.branches;
    event.subject.clone_from(&parent.subject);
    event.meta = Meta::None;
    if let Some(trace) = parent.extensions.get("traceparent") {
        event.extensions.insert("traceparent".to_owned(), trace.clone());
    }
    event
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    version: &'static str,
    timestamp: String,
    request_context: Context,
    request_payload: Box<RawValue>,
    response_context: ResponseContext<'a>,
    response_payload: Box<RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    request_id: String,
    function_arn: String,
    condition: &'static str,
    approximate_invoke_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext<'a> {
    status_code: u16,
    executed_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_error: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::Born, outcome::Ending};

    fn parent() -> Event {
        let mut event = Event::new("/shop/orders", "http.request", r#"{"n":1.10}"#);
        event.correlation = Some(EventId::foreign("order-7"));
        event.hop = 2;
        event
    }

    fn delivery() -> RowId {
        RowId::new(Born(1 << 12), 7)
    }

    #[test]
    fn an_output_follows_from_its_parent_with_the_same_id_each_time() {
        let (parent, output) = (parent(), Bytes::from("[1,2.50]"));
        let one = outputs(&parent, delivery(), "/shop/price", &output, false);
        let again = outputs(&parent, delivery(), "/shop/price", &output, false);
        assert_eq!((one.len(), &one[0].id, &one[0].data), (1, &again[0].id, &output));
        assert_eq!((one[0].hop, &one[0].causation), (3, &Some(parent.id.clone())));
        assert_eq!(one[0].correlation, parent.correlation);
    }

    #[test]
    fn with_each_every_element_is_an_event_of_its_own_to_the_letter() {
        let many = outputs(&parent(), delivery(), "/shop/price", &"[1.10, {\"a\" : 2}]".into(), true);
        assert_eq!(many.iter().map(|e| &e.data[..]).collect::<Vec<_>>(), [&b"1.10"[..], b"{\"a\" : 2}"]);
        assert_ne!(many[0].id, many[1].id);
        assert_eq!(outputs(&parent(), delivery(), "/s", &"7".into(), true).len(), 1);
        assert!(outputs(&parent(), delivery(), "/s", &"[]".into(), true).is_empty());
    }

    #[test]
    fn a_chain_ends_at_the_hop_limit() {
        let mut event = parent();
        assert_eq!(hops_left(&event), Ok(()));
        event.hop = MAX_HOP;
        assert_eq!(hops_left(&event), Err(HopLimit));
    }

    #[test]
    fn a_flow_branches_up_to_its_limit_and_no_further() {
        let mut event = parent();
        assert_eq!([branched(&event, 0), branched(&event, 1), branched(&event, 7)], [Ok(1), Ok(1), Ok(7)]);
        event.branches = MAX_BRANCHES / 10;
        assert_eq!((branched(&event, 10), branched(&event, 11)), (Ok(MAX_BRANCHES), Err(BranchLimit)));
        assert_eq!(branched(&event, usize::MAX), Err(BranchLimit));
        let chain = Chain { each: true, then: vec!["file:out".parse().unwrap()], ..Chain::default() };
        let with = |elements: usize| {
            let output = serde_json::to_vec(&vec![1; elements]).unwrap().into();
            let failed = Outcome::failure(Ending::Error, "", "");
            too_many(&event, &chain, &Outcome { ending: Ending::Ok, fault: None, output, ..failed })
        };
        assert_eq!(with(10), None);
        assert!(with(11).is_some_and(|outcome| outcome.fault.is_some_and(|fault| !fault.retry)));
    }

    #[test]
    fn a_record_has_the_shape_of_an_invocation_record_with_payloads_to_the_letter() {
        let outcome = Outcome::failure(Ending::Error, "ValueError", "no");
        let function = "price".parse().unwrap();
        let end = End { condition: "RetriesExhausted", attempts: 3 };
        let event = record(&parent(), delivery(), &function, "/shop/price", &outcome, &end);
        assert_eq!(&*event.kind, FAILURE);
        assert!(std::str::from_utf8(&event.data).unwrap().contains(r#""requestPayload":{"n":1.10}"#));
        let json: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
        assert_eq!(json["requestContext"]["condition"], "RetriesExhausted");
        assert_eq!(json["requestContext"]["approximateInvokeCount"], 3);
        assert_eq!(json["responseContext"]["functionError"], "Unhandled");
        assert_eq!(json["responsePayload"]["errorType"], "ValueError");
    }
}
