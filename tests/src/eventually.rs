//! Tests wait for what they expect, never for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` finds something, and gives it.
///
/// # Panics
/// When it is not found within [`PATIENCE`]; `what` says what was waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", PATIENCE.as_secs());
        // Between two looks, not instead of one.
        sleep(Duration::from_millis(20)).await;
    }
}
