//! Who is on which instance of a pool. One that several invocations share is in use from the first to the last of them.

use std::sync::Arc;

use super::{From, Pooled};
use crate::{instance::Instance, process::Group};

impl Pooled {
    /// Whether an instance may go on serving.
    pub(super) fn serves(&self, instance: &Instance, from: From) -> bool {
        let current = self.version.as_ref().is_some_and(|v| Arc::ptr_eq(v, &instance.version));
        let others = match instance.shared() {
            // of those in use, which itself may still be, the others that go on serving
            Some(shared) if from == From::Busy => {
                if shared.is_retired() {
                    return false;
                }
                let others = self.shared.iter().filter(|other| !other.is_same(instance)).count();
                self.idle.len() + self.starting + others
            }
            _ => self.slots().total(),
        };
        current && !self.closed && others < self.limits.concurrency as usize
    }

    /// An instance in use that has room for another invocation.
    pub(super) fn open(&self) -> Option<Instance> {
        self.shared.iter().rev().find(|instance| instance.open() > 0).and_then(Instance::another)
    }

    /// An instance for an invocation: one that is in use first, so that the others get old.
    pub(super) fn take(&mut self) -> Option<Instance> {
        self.open().or_else(|| self.idle.pop().map(|idle| idle.instance))
    }

    /// One more invocation is on an instance.
    pub(super) fn enter(&mut self, instance: &Instance) {
        self.running += 1;
        let Some(shared) = instance.shared() else {
            self.busy += 1;
            return;
        };
        if shared.enter() {
            self.busy += 1;
            self.shared.extend(instance.another());
        }
    }

    /// One less.
    pub(super) fn leave(&mut self, instance: &Instance) {
        let Some(shared) = instance.shared() else { return self.leave_one() };
        shared.leave();
        if shared.rests() {
            self.shared.retain(|other| !other.is_same(instance));
            self.leave_one();
        } else {
            self.running -= 1;
        }
    }

    /// The invocation of an instance that has no other.
    pub(super) fn leave_one(&mut self) {
        self.running -= 1;
        self.busy -= 1;
    }

    /// No further invocation comes to an instance that cannot be used any more. Its process, where that gets some time to end.
    pub(super) fn retire(&mut self, instance: &Instance) -> Option<Arc<Group>> {
        let shared = instance.shared()?;
        shared.retire();
        self.shared.retain(|other| !other.is_same(instance));
        if !shared.rests() {
            return None;
        }
        self.ending += 1;
        Some(shared.group().clone())
    }
}
