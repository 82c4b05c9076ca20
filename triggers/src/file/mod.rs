//! Files: `file = "inbox/*.csv"`.
//!
//! What is known of the files is the **inventory**: path -> inode, size and modification time of what was last told.
//! It is remembered in the commit of each event. What the system says of changes is only a hint to look; what counts
//! is the difference between the inventory and the folder. So nothing depends on hints that were lost, and what
//! happened while fnbus did not run is found in the same way.
//!
//! The modules, from the pattern to the event:

// Which files a pattern means.
pub mod pattern;
// What is in the folders now.
mod scan;
// What changed, and whether it is finished.
mod inventory;
// Hints that something changed.
mod watch;
// A change as an event.
mod event;
// Watches, looks, and accepts.
mod run;

pub use pattern::Pattern;
pub(crate) use run::Files;
