//! Reads `[triggers.NAME]`.

use std::path::Path;

use bus::{
    config::{Field, FromValue, Problem, Reader, Section, Shape, Size, Value, Wrong, parsed},
    order::{OnDead, Order},
};

use super::{
    EventTrigger, HttpTrigger, Mode, PayloadKey, TriggerConfig, TriggerKind, Zone, cron::read_cron, file::read_file,
    keys, kind::Kind, queue::read_queue,
};
use crate::http::route::RoutePath;

impl TriggerConfig {
    pub fn section() -> &'static Section {
        &keys::TRIGGER
    }

    /// Reads one trigger; `base` is the folder relative paths begin at, `zone` that of the whole file. None when its
    /// kind, what it listens to or its targets are missing or wrong.
    pub fn read(reader: Reader<'_>, base: &Path, zone: Zone) -> Option<Self> {
        let kind = Kind::of(&reader);
        let to = reader.required_list("to");
        let payload = reader.get_or("payload", PayloadKey::default());
        let order_by = read_order(&reader);
        let example = reader.get("example");
        let trigger = match kind {
            Some(Kind::Http) => read_http(&reader).map(TriggerKind::Http),
            Some(Kind::Cron) => read_cron(&reader, zone).map(TriggerKind::Cron),
            Some(Kind::File) => read_file(&reader, payload, base).map(TriggerKind::File),
            Some(Kind::Queue) => read_queue(&reader).map(TriggerKind::Queue),
            Some(Kind::Event) => read_event(&reader).map(TriggerKind::Event),
            None => None,
        };
        match kind {
            Some(kind) => kind.refuse_others(&reader),
            None => Kind::skip_all(&reader),
        }
        let config = (|| Some(Self { kind: trigger?, to: to?, payload, order_by, example }))();
        if let Some(config) = &config {
            config.check_synchronous(&reader);
            config.check_order(&reader);
        }
        reader.finish();
        config
    }

    /// The answer of a synchronous request comes from one function or pipeline.
    fn check_synchronous(&self, reader: &Reader<'_>) {
        let TriggerKind::Http(HttpTrigger { mode: Mode::Sync, .. }) = self.kind else { return };
        if let [target] = &self.to[..]
            && target.name().is_none()
        {
            let text = format!("{} is synchronous and `{target}` gives no answer", reader.title());
            let advice = "name the function that answers, or set mode = \"async\"";
            let at = reader.field("to").map_or(reader.at(), |f| f.span());
            reader.problem(Problem::new(at, text).advice(advice).label("no answer"));
        }
        if self.to.len() != 1 {
            let text = format!("{} is synchronous and has {} targets", reader.title(), self.to.len());
            let advice = "name the one function that answers, or set mode = \"async\"";
            let at = reader.field("to").map_or(reader.at(), |f| f.span());
            reader.problem(Problem::new(at, text).advice(advice).label("whose answer?"));
        }
    }

    /// Order is of what waits: a synchronous call does not, and the times of a schedule have no key.
    fn check_order(&self, reader: &Reader<'_>) {
        let (why, advice) = match self.kind {
            TriggerKind::Http(HttpTrigger { mode: Mode::Sync, .. }) => {
                ("orders what waits, and a synchronous request does not", "set mode = \"async\", or take it out")
            }
            TriggerKind::Cron(_) => {
                ("needs events that have a key, and times have none", "overlap = \"skip\" keeps them apart")
            }
            _ => return,
        };
        reader.refuse("order_by", &Wrong::of_key(why).advice(advice).label("not used"));
    }
}

/// A place in the event, or a table that has one and says what a dead letter means for those behind it.
fn read_order(reader: &Reader<'_>) -> Option<Order> {
    let field = reader.field("order_by")?;
    if !field.value().is_table() {
        return Some(Order { key: field.read()?, on_dead: OnDead::default() });
    }
    let reader = field.reader()?;
    let (key, on_dead) = (reader.required("key"), reader.get_or("on_dead", OnDead::default()));
    reader.finish();
    Some(Order { key: key?, on_dead })
}

fn read_http(reader: &Reader<'_>) -> Option<HttpTrigger> {
    let routes = reader.required_list("http");
    let mode = reader.get_or("mode", Mode::default());
    let timeout = reader.get("timeout");
    let max_body = reader.get("max_body").map(|Size(bytes)| bytes);
    let log = reader.get("log");
    if mode == Mode::Async {
        for key in ["timeout", "log"] {
            let wrong = Wrong::of_key("is for synchronous requests, and this trigger answers 202 at once");
            reader.refuse(key, &wrong.advice(format!("take `{key}` out, or set mode = \"sync\"")).label("not used"));
        }
    }
    Some(HttpTrigger { routes: routes?, mode, timeout, max_body, log: log.unwrap_or_default() })
}

fn read_event(reader: &Reader<'_>) -> Option<EventTrigger> {
    let field = reader.field("event")?;
    if !field.value().is_table() {
        field.wrong(&Wrong::not_a("a table", field.value()).advice("write event = { type = [\"order.priced\"] }"));
        return None;
    }
    let fields = field.fields();
    if fields.is_empty() {
        let wrong = Wrong::of_key("has no condition and would match every event of the bus");
        field.wrong(&wrong.advice("write event = { type = [\"order.priced\"] }").label("empty"));
        return None;
    }
    let mut trigger = EventTrigger::default();
    let mut good = true;
    for field in fields {
        match read_attribute(&field) {
            Some(values) => _ = trigger.attributes.insert(field.name.to_owned(), values),
            None => good = false,
        }
    }
    good.then_some(trigger)
}

fn read_attribute(field: &Field<'_>) -> Option<Vec<String>> {
    // CloudEvents: attribute names are lower-case letters and digits
    if field.name.is_empty() || !field.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        let wrong = Wrong::sentence(format!("`{}` is not the name of an event's attribute", field.name));
        let advice = "use `type`, `source`, `subject`, `trigger` or an extension: lower-case letters and digits";
        field.wrong_name(&wrong.label("not an attribute").advice(advice));
        return None;
    }
    let values: Vec<String> = field.list()?;
    if values.is_empty() {
        field.wrong(&Wrong::of_key("has no value and would never match").label("empty list"));
        return None;
    }
    Some(values)
}

impl FromValue for RoutePath {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        parsed(value).map_err(|w| w.label("not a route"))
    }
}
