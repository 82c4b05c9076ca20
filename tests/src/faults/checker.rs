//! Whether a history keeps the promises. Pure: it can be shown a bad one and must see it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Tally,
    history::{Attempt, Delivery, Event, FOLLOWED, History, delivery_of},
    recorder::Execution,
};

/// A kill explains an attempt that ran and is not in the log when it came so soon after the attempt began, in microseconds.
const UNWRITTEN: i64 = 5_000_000;

/// What the project is made of, as far as something follows from it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Functions that record.
    pub recorded: Vec<&'static str>,
    /// Those with a `then`: one output follows from each delivery that is done.
    pub chained: Vec<&'static str>,
    /// Pipelines, and how many steps a run of each has.
    pub pipelines: Vec<(&'static str, usize)>,
    /// Functions that get the events of one key one at a time.
    pub ordered: Vec<&'static str>,
    /// Node and functions look at one clock.
    pub one_clock: bool,
    /// Everything stays in the log; else retention takes what has ended, and what is not there tells nothing.
    pub kept: bool,
}

impl Default for Shape {
    /// That of the arena's project.
    fn default() -> Self {
        Self {
            recorded: vec!["work", "follow", "step", "keyed"],
            chained: vec!["work"],
            pipelines: vec![("flow", 2)],
            ordered: vec!["keyed"],
            one_clock: true,
            kept: true,
        }
    }
}

/// Looks at everything.
pub fn judge(history: &History, shape: &Shape) -> Tally {
    let view = View::of(history, shape);
    let mut tally = Tally::default();
    view.accepted(&mut tally);
    view.ended(&mut tally);
    view.executed(&mut tally);
    view.followed(&mut tally);
    view.ran(&mut tally);
    view.ordered(&mut tally);
    view.written(&mut tally);
    tally
}

/// A history with what is needed to find one's way in it.
struct View<'a> {
    history: &'a History,
    shape: &'a Shape,
    deliveries: HashMap<i64, &'a Delivery>,
    events: HashMap<i64, &'a Event>,
    executions: HashMap<i64, Vec<(usize, &'a Execution)>>,
    attempts: HashMap<&'a str, &'a Attempt>,
}

impl<'a> View<'a> {
    fn of(history: &'a History, shape: &'a Shape) -> Self {
        let mut executions: HashMap<i64, Vec<(usize, &Execution)>> = HashMap::new();
        for (at, execution) in history.executions.iter().enumerate() {
            if let Some(delivery) = delivery_of(&execution.attempt) {
                executions.entry(delivery).or_default().push((at, execution));
            }
        }
        Self {
            history,
            shape,
            deliveries: history.deliveries.iter().map(|delivery| (delivery.seq, delivery)).collect(),
            events: history.events.iter().map(|event| (event.seq, event)).collect(),
            executions,
            attempts: history.attempts.iter().map(|attempt| (&*attempt.id, attempt)).collect(),
        }
    }

    fn event(&self, delivery: &Delivery) -> &str {
        self.events.get(&delivery.event).map_or("?", |event| &*event.id)
    }

    fn executions(&self, delivery: i64) -> &[(usize, &'a Execution)] {
        self.executions.get(&delivery).map_or(&[], Vec::as_slice)
    }

    fn is_recorded(&self, target: &str) -> bool {
        self.shape.recorded.contains(&target)
    }

    /// Accepted means in the log, once, with the same bytes.
    fn accepted(&self, tally: &mut Tally) {
        let mut logged: HashMap<&str, Vec<&Event>> = HashMap::new();
        for event in &self.history.events {
            logged.entry(&event.id).or_default().push(event);
        }
        let mut met = HashSet::new();
        for accepted in self.history.accepted.iter().filter(|accepted| met.insert(&accepted.id)) {
            tally.events += 1;
            let id = &accepted.id;
            match logged.get(&**id).map(Vec::as_slice) {
                None if !self.shape.kept => {}
                None => tally.lost(format!("{id} ({}) was accepted and is not in the log", accepted.path)),
                Some([event]) => {
                    if event.hash.as_ref().is_some_and(|hash| *hash != accepted.hash) {
                        tally.lost(format!("{id} is in the log with other bytes"));
                    }
                }
                Some(several) => tally.doubled(format!("{id} is in the log {} times", several.len())),
            }
        }
    }

    /// Everything ends, and what was given up says why.
    fn ended(&self, tally: &mut Tally) {
        for delivery in &self.history.deliveries {
            let name = || format!("the delivery of {} to {}", self.event(delivery), delivery.target);
            if !delivery.is_ended() {
                tally.stuck(format!("{} has status {} and does not end", name(), delivery.status));
            }
            if delivery.status == Delivery::DEAD && delivery.reason.is_none() {
                tally.broken(format!("{} is dead without a reason", name()));
            }
        }
    }

    /// What is done has run; what ran is in the log, as an attempt of its own, and not after it was done.
    fn executed(&self, tally: &mut Tally) {
        let mut met = HashSet::new();
        for execution in &self.history.executions {
            let Execution { attempt, event, function, started, .. } = execution;
            if !met.insert(attempt) {
                tally.doubled(format!("attempt {attempt} of {event} ran twice in {function}"));
            }
            let Some(delivery) = delivery_of(attempt).and_then(|delivery| self.deliveries.get(&delivery)) else {
                if !self.shape.kept {
                    continue;
                }
                tally.broken(format!("{function} ran {event} as {attempt}, of a delivery that is not in the log"));
                continue;
            };
            if self.event(delivery) != event || delivery.target != *function {
                // the row of one that was removed may be another one's now
                if !self.shape.kept {
                    continue;
                }
                tally.broken(format!("{function} ran {event} as {attempt}, which is of another delivery"));
            }
            if self.shape.one_clock && delivery.is_done() && delivery.ended.is_some_and(|ended| *started > ended) {
                tally.doubled(format!("{function} ran {event} after it was done"));
            }
            let killed = |kill: &i64| (0..UNWRITTEN).contains(&(kill - started));
            if !self.attempts.contains_key(&**attempt) && !self.history.kills.iter().any(killed) {
                tally.broken(format!("{function} ran {event} as {attempt}, which is not in the log"));
            }
        }
        for attempt in self.history.attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("ok")) {
            let Some(delivery) = self.deliveries.get(&attempt.delivery) else { continue };
            let finished = |(_, execution): &(usize, &Execution)| execution.attempt == attempt.id && !execution.failed;
            if self.is_recorded(&delivery.target) && !self.executions(attempt.delivery).iter().any(finished) {
                tally.lost(format!("{} did not run {} as {}", delivery.target, self.event(delivery), attempt.id));
            }
        }
        for delivery in self.history.deliveries.iter().filter(|delivery| delivery.is_done()) {
            if self.is_recorded(&delivery.target) && self.executions(delivery.seq).is_empty() {
                tally.lost(format!("{} is done in {} and never ran", self.event(delivery), delivery.target));
            }
        }
    }

    /// Of each delivery that is done follows one output.
    fn followed(&self, tally: &mut Tally) {
        for function in self.shape.chained.iter().filter(|_| self.shape.kept) {
            let mut outputs: HashMap<&str, usize> = HashMap::new();
            let own = format!("/{function}");
            for event in &self.history.events {
                if event.kind == "function.output" && event.source.ends_with(&own) {
                    *outputs.entry(event.causation.as_deref().unwrap_or_default()).or_default() += 1;
                }
            }
            let mut ended: HashMap<&str, usize> = HashMap::new();
            for delivery in &self.history.deliveries {
                if delivery.target == *function && delivery.is_done() && !delivery.hold {
                    *ended.entry(self.event(delivery)).or_default() += 1;
                }
            }
            for (event, expected) in &ended {
                let found = outputs.remove(event).unwrap_or_default();
                if found < *expected {
                    tally.lost(format!(
                        "{event} was done {expected} times in {function}, of which {found} outputs follow"
                    ));
                } else if found > *expected {
                    tally.doubled(format!(
                        "{event} was done {expected} times in {function}, and {found} outputs follow"
                    ));
                }
            }
            for (event, found) in outputs {
                tally.doubled(format!("{found} outputs of {function} follow from {event}, which is not done"));
            }
        }
    }

    /// Each delivery to a pipeline is one run, with each step once.
    fn ran(&self, tally: &mut Tally) {
        let mut steps: HashMap<i64, BTreeMap<&str, usize>> = HashMap::new();
        for delivery in &self.history.deliveries {
            if let Some((run, step)) = &delivery.step {
                *steps.entry(*run).or_default().entry(step).or_default() += 1;
            }
        }
        for (pipeline, length) in &self.shape.pipelines {
            for delivery in self.history.deliveries.iter().filter(|delivery| delivery.target == *pipeline) {
                let runs: Vec<_> = self.history.runs.iter().filter(|run| run.delivery == delivery.seq).collect();
                let event = self.event(delivery);
                match &*runs {
                    [] if delivery.is_done() => tally.lost(format!("{event} is done in {pipeline} without a run")),
                    [] => {}
                    [run] => {
                        let made = steps.get(&run.seq);
                        let several = made.into_iter().flatten().filter(|(_, times)| **times > 1);
                        several.for_each(|(step, _)| tally.doubled(format!("{event} was given to step {step} twice")));
                        let made = made.map_or(0, BTreeMap::len);
                        if delivery.is_done() && made < *length {
                            tally.lost(format!("{event} is done in {pipeline} after {made} of {length} steps"));
                        }
                    }
                    several => tally.doubled(format!("{event} has {} runs of {pipeline}", several.len())),
                }
            }
        }
    }

    /// What a file got: each delivery that is done at least once, and nothing torn.
    fn written(&self, tally: &mut Tally) {
        let written: HashSet<&str> = self.history.written.iter().map(String::as_str).collect();
        tally.must(!written.contains(""), || format!("{FOLLOWED} has a torn line"));
        let target = format!("file:{FOLLOWED}");
        for delivery in self.history.deliveries.iter().filter(|delivery| delivery.target == target) {
            if delivery.is_done() && !written.contains(&*delivery.id) {
                tally.lost(format!("{} is done in {FOLLOWED} and not there", self.event(delivery)));
            }
        }
    }

    /// Of one key, none begins before the one before it has run for the last time.
    fn ordered(&self, tally: &mut Tally) {
        for function in &self.shape.ordered {
            // deliveries are in the order of the log
            let mut before: HashMap<&str, (usize, &str)> = HashMap::new();
            for delivery in self.history.deliveries.iter().filter(|delivery| delivery.target == *function) {
                let Some(key) = delivery.key.as_deref() else { continue };
                let ran = self.executions(delivery.seq);
                let (Some((first, _)), Some((last, _))) = (ran.first(), ran.last()) else { continue };
                if let Some((_, event)) = before.get(key).filter(|(earlier, _)| earlier > first) {
                    tally.broken(format!("{} of key {key} ran before {event} was done with", self.event(delivery)));
                }
                before.insert(key, (*last, self.event(delivery)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{
        history::{Run, row_id},
        producer::Accepted,
    };

    const WORK: &str = "work";

    /// One event that was accepted, ran once and led to one output, which ran as well.
    fn good() -> History {
        let event = |seq, id: &str, source: &str, causation: Option<&str>| Event {
            seq,
            id: id.to_owned(),
            source: source.to_owned(),
            kind: if causation.is_some() { "function.output" } else { "http.request" }.to_owned(),
            hash: Some("h".to_owned()),
            causation: causation.map(str::to_owned),
        };
        History {
            accepted: vec![Accepted { id: "e".into(), hash: "h".into(), path: "/jobs".into() }],
            events: vec![event(1, "e", "/fnbus/jobs", None), event(2, "f", "/fnbus/work", Some("e"))],
            deliveries: vec![delivery(1, 1, WORK), delivery(2, 2, "follow")],
            attempts: vec![attempt(1), attempt(2)],
            executions: vec![execution(1, "e", WORK, 10), execution(2, "f", "follow", 20)],
            ..History::default()
        }
    }

    fn delivery(seq: i64, event: i64, target: &str) -> Delivery {
        Delivery {
            seq,
            id: row_id(seq, 7),
            event,
            target: target.to_owned(),
            status: Delivery::DONE,
            reason: None,
            ended: Some(seq * 10 + 5),
            key: None,
            step: None,
            hold: false,
        }
    }

    fn id(delivery: i64) -> String {
        row_id(delivery << 12 | 1, 7)
    }

    fn attempt(delivery: i64) -> Attempt {
        Attempt { id: id(delivery), delivery, outcome: Some("ok".into()) }
    }

    fn execution(delivery: i64, event: &str, function: &str, started: i64) -> Execution {
        Execution {
            function: function.to_owned(),
            event: event.to_owned(),
            attempt: id(delivery),
            pid: 1,
            started,
            ended: Some(started + 1),
            failed: false,
        }
    }

    /// lost, doubled, stuck, broken
    fn figures(history: &History) -> (usize, usize, usize, usize) {
        let tally = judge(history, &Shape::default());
        (tally.lost, tally.doubled, tally.stuck, tally.broken)
    }

    #[test]
    fn a_good_history_counts_nothing_but_its_events() {
        let tally = judge(&good(), &Shape::default());
        assert!(tally.is_clean() && tally.events == 1, "{tally:?}");
    }

    #[test]
    fn an_accepted_event_that_is_not_in_the_log_is_lost() {
        let mut history = good();
        history.accepted.push(Accepted { id: "g".into(), hash: "h".into(), path: "/jobs".into() });
        assert_eq!(figures(&history), (1, 0, 0, 0));
    }

    #[test]
    fn other_bytes_are_a_loss_and_a_second_event_of_one_id_is_double() {
        let mut history = good();
        history.events[0].hash = Some("other".into());
        assert_eq!(figures(&history).0, 1);
        let mut history = good();
        let again = Event { seq: 3, ..history.events[0].clone() };
        history.events.push(again);
        assert_eq!(figures(&history), (0, 1, 0, 0));
    }

    #[test]
    fn what_is_done_and_never_ran_is_lost() {
        let mut history = good();
        history.executions.remove(1);
        assert!(figures(&history).0 > 0);
    }

    #[test]
    fn an_execution_after_the_end_is_double_and_so_is_an_attempt_that_runs_twice() {
        let mut history = good();
        history.executions[0].started = 16;
        assert_eq!(figures(&history), (0, 1, 0, 0));
        let mut history = good();
        history.executions.push(execution(1, "e", WORK, 11));
        assert_eq!(figures(&history), (0, 1, 0, 0));
    }

    #[test]
    fn an_attempt_that_is_not_in_the_log_needs_a_kill_to_explain_it() {
        let mut history = good();
        let unwritten = Execution { attempt: row_id(1 << 12 | 1, 8), ..history.executions[0].clone() };
        history.executions.push(unwritten);
        assert_eq!(figures(&history), (0, 0, 0, 1));
        history.kills.push(12);
        assert_eq!(figures(&history), (0, 0, 0, 0));
    }

    #[test]
    fn a_missing_output_is_lost_and_a_second_one_is_double() {
        let mut history = good();
        history.events.pop();
        history.deliveries.pop();
        history.attempts.pop();
        history.executions.pop();
        assert_eq!(figures(&history), (1, 0, 0, 0));
        let mut history = good();
        let again = Event { seq: 3, id: "g".into(), ..history.events[1].clone() };
        history.events.push(again);
        assert_eq!(figures(&history), (0, 1, 0, 0));
    }

    #[test]
    fn a_delivery_that_does_not_end_is_stuck_and_a_dead_one_says_why() {
        let mut history = good();
        history.deliveries[1].status = 1;
        history.attempts[1].outcome = None;
        assert_eq!(figures(&history), (0, 0, 1, 0));
        history.deliveries[1].status = Delivery::DEAD;
        assert_eq!(figures(&history), (0, 0, 0, 1));
    }

    #[test]
    fn a_run_without_its_steps_is_a_loss_and_a_step_that_is_made_twice_is_double() {
        let mut history = good();
        history.deliveries.push(delivery(3, 1, "flow"));
        assert_eq!(figures(&history).0, 1);
        history.runs.push(Run { seq: 1, pipeline: "flow".into(), delivery: 3, status: 10 });
        assert_eq!(figures(&history).0, 1);
        for (seq, step) in [(4, "0"), (5, "1"), (6, "1")] {
            history.deliveries.push(Delivery { step: Some((1, step.into())), ..delivery(seq, 1, "step") });
            history.attempts.push(attempt(seq));
            history.executions.push(execution(seq, "e", "step", seq * 10));
        }
        assert_eq!(figures(&history), (0, 1, 0, 0));
    }

    #[test]
    fn what_a_file_did_not_get_is_lost_and_a_torn_line_is_seen() {
        let mut history = good();
        history.deliveries.push(delivery(3, 2, "file:out/followed.jsonl"));
        assert_eq!(figures(&history), (1, 0, 0, 0));
        history.written.push(row_id(3, 7));
        assert_eq!(figures(&history), (0, 0, 0, 0));
        history.written.push(String::new());
        assert_eq!(figures(&history), (0, 0, 0, 1));
    }

    #[test]
    fn a_key_that_overtakes_itself_is_seen() {
        let mut history = good();
        for (seq, started) in [(3, 40), (4, 30)] {
            history.deliveries.push(Delivery { key: Some("k".into()), ended: Some(99), ..delivery(seq, 1, "keyed") });
            history.attempts.push(attempt(seq));
            history.executions.push(execution(seq, "e", "keyed", started));
        }
        assert_eq!(figures(&history), (0, 0, 0, 0));
        history.executions.swap(2, 3);
        assert_eq!(figures(&history), (0, 0, 0, 1));
    }
}
