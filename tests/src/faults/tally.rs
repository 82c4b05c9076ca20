//! What a fault did to the promises.

use serde::Serialize;

/// Notes beyond this are only counted: one broken promise is often broken a thousand times.
const NOTES: usize = 20;

/// The figures of one fault. All but the first two are to be zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub cycles: usize,
    /// Events that were accepted.
    pub events: usize,
    /// Accepted and not in the log with the same bytes, done without having run, or done without what follows.
    pub lost: usize,
    /// Ran after it was done, or followed twice.
    pub doubled: usize,
    /// Unended a minute after the fault was healed.
    pub stuck: usize,
    /// Processes that outlived the node.
    pub orphans: usize,
    /// Every other promise that did not hold: order, answers, reasons, secrets, and what the fault itself expects.
    pub broken: usize,
    /// What was found, in words.
    pub notes: Vec<String>,
}

impl Tally {
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.stuck + self.orphans + self.broken == 0
    }

    pub fn lost(&mut self, note: impl Into<String>) {
        self.lost += 1;
        self.note(note);
    }

    pub fn doubled(&mut self, note: impl Into<String>) {
        self.doubled += 1;
        self.note(note);
    }

    pub fn stuck(&mut self, note: impl Into<String>) {
        self.stuck += 1;
        self.note(note);
    }

    pub fn orphan(&mut self, note: impl Into<String>) {
        self.orphans += 1;
        self.note(note);
    }

    /// A promise that is none of the above does not hold.
    pub fn broken(&mut self, note: impl Into<String>) {
        self.broken += 1;
        self.note(note);
    }

    /// Counts it as broken unless it holds.
    pub fn must(&mut self, holds: bool, note: impl FnOnce() -> String) {
        if !holds {
            self.broken(note());
        }
    }

    /// A remark that counts for nothing, such as a measure.
    pub fn note(&mut self, note: impl Into<String>) {
        if self.notes.len() < NOTES {
            self.notes.push(note.into());
        }
    }

    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.cycles += other.cycles;
        self.events += other.events;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.stuck += other.stuck;
        self.orphans += other.orphans;
        self.broken += other.broken;
        other.notes.into_iter().for_each(|note| self.note(note));
    }
}
