//! The clock of the engine: as long as anything runs, each tick makes what computes give way to others, and to its deadline.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::Engine;

pub(super) struct Clock {
    running: Arc<AtomicUsize>,
    thread: Thread,
}

/// Something runs, as long as this lives.
pub(super) struct Ticking(Arc<AtomicUsize>);

impl Clock {
    /// A clock that ends with its engine.
    pub(super) fn start(engine: &Engine, tick: Duration) -> io::Result<Self> {
        let running = Arc::new(AtomicUsize::new(0));
        let (engine, count) = (engine.weak(), running.clone());
        let ticks = move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                if count.load(Ordering::SeqCst) == 0 {
                    thread::park();
                } else {
                    thread::sleep(tick);
                }
            }
        };
        let thread = thread::Builder::new().name("wasm-clock".into()).spawn(ticks)?.thread().clone();
        Ok(Self { running, thread })
    }

    pub(super) fn tick(&self) -> Ticking {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Ticking(self.running.clone())
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
