//! What is reported of `[triggers.NAME]`.

use insta::assert_snapshot;

use super::report;

#[test]
fn schedules_and_zones() {
    assert_snapshot!(report(
        r#"
timezone = "Asia/Soul"
[functions.price]
runtime = "python"
[triggers.one]
cron = ["0 2 * *", "0 25 * * *", "0 0 30 2 *", "@reboot"]
timezone = "KST"
to = "price"
[triggers.two]
cron = "cron(0 2 * * * *)"
missed = "none"
missed_within = "2h"
mode = "async"
to = "price"
[triggers.three]
cron = ["rate(5 minute)", "at(tomorrow)", 5, "0 6 * * MON-FRI"]
overlap = "wait"
to = "price"
"#
    ));
}

#[test]
fn patterns_of_files() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
[triggers.one]
file = ["inbox/[a", "inbox/", "", "price"]
to = "price"
[triggers.two]
file = "inbox/*.csv"
on = ["created", "delete"]
settle = 5
to = "price"
"#
    ));
}

#[test]
fn queues() {
    assert_snapshot!(report(
        r#"
[bus]
namespace = "shop"
[functions.price]
runtime = "python"
[triggers.one]
queue = "amqp://me:hush@host/orders"
to = "price"
[triggers.two]
queue = "nats://host:4222/orders"
dedup = "id"
to = "price"
[triggers.three]
queue = "orders.>"
to = "price"
[triggers.four]
queue = "nats:shop.deliver.>"
to = "price"
[triggers.five]
queue = "nats:$JS.API.>"
to = "price"
[triggers.six]
queue = "nats:a..b"
to = "price"
"#
    ));
}

#[test]
fn batches_order_and_events_as_targets() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
then = ["event:", "event:order priced"]
[pipelines.line]
steps = ["price"]
[triggers.one]
queue = "nats:a"
batch = { size = 0, window = 5, max = 3 }
order_by = "data."
to = "price"
[triggers.two]
queue = "nats:b"
batch = { size = 10 }
to = ["price", "line"]
[triggers.three]
queue = "nats:c"
batch = 10
to = "price"
[triggers.four]
http = "GET /four"
batch = { size = 10 }
order_by = "data.customer"
to = "price"
[triggers.five]
cron = "0 2 * * *"
order_by = "subject"
to = "price"
[triggers.six]
event = { type = "x" }
order_by = "Data.customer"
to = "price"
"#
    ));
}

#[test]
fn schedules_that_never_were() {
    assert_snapshot!(report(
        r#"
timezone = ""
[functions.price]
runtime = "python"
[triggers.one]
cron = ["61 2 * * *", "* * * * * *", "0 2 * * MONN", "", "@Daily", "0 2 31 2 *"]
timezone = "Mars/Olympus"
to = "price"
"#
    ));
}

#[test]
fn colliding_routes() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
[triggers.a]
http = ["GET /orders/{id}", "POST /orders/{id}"]
to = "price"
[triggers.b]
http = "GET /orders/{name}"
to = "price"
"#
    ));
}

#[test]
fn a_trigger_of_two_kinds_or_none_and_keys_of_later_versions() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
[triggers.two]
http = "GET /two"
event = { type = "x" }
to = "price"
[triggers.none]
to = "price"
[triggers.nightly]
queue = "nats:payments.>"
filter = { data = { status = ["PAID"] } }
to = "price"
"#
    ));
}

#[test]
fn keys_of_another_kind_and_a_synchronous_trigger_with_two_targets() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
[functions.notify]
runtime = "python"
warm = 3
concurrency = 2
[triggers.priced]
event = {}
mode = "async"
to = "price"
[triggers.orders]
http = "GET /orders"
to = ["price", "notify"]
[triggers.nobody]
http = "GET /nobody"
to = []
"#
    ));
}

#[test]
fn what_happens_behind_a_dead_letter() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
[triggers.one]
event = { type = "x" }
order_by = { key = "data.customer", on_dead = "blok" }
to = "price"
[triggers.two]
event = { type = "x" }
order_by = { on_dead = "block", wait = 1 }
to = "price"
[triggers.three]
event = { type = "x" }
order_by = { key = "data.", on_dead = true }
to = "price"
[triggers.four]
event = { type = "x" }
order_by = 5
to = "price"
[triggers.five]
event = { type = "x" }
order_by = { key = "subject", on_dead = "block" }
to = "price"
"#
    ));
}
