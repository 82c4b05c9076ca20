//! triggers

/// `[http]` and `[triggers.NAME]`: what turns the world into events.
pub mod config;
/// HTTP requests as events.
pub mod http {
    pub mod route;
}
