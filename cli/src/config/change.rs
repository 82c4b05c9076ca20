//! What a reload cannot change.

use std::fmt;

use bus::config::duration_text;

use super::Config;

/// A key whose new value waits for a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NeedsRestart {
    pub(crate) key: &'static str,
    pub(crate) from: String,
    pub(crate) to: String,
}

impl fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, from, to } = self;
        write!(f, "`{key}` changed from {from} to {to}: restart fnbus for it to take effect")
    }
}

impl Config {
    /// What of `new` does not take effect while this config runs.
    pub(crate) fn needs_restart(&self, new: &Self) -> Vec<NeedsRestart> {
        let fixed = |config: &Self| {
            let bus = &config.bus;
            [
                ("[bus] namespace", bus.namespace.to_string()),
                ("[bus] data", bus.data.display().to_string()),
                ("[bus] nats", bus.nats.as_ref().map_or("its own server".to_owned(), ToString::to_string)),
                ("[bus] nats_port", bus.nats_port.map_or("a free one".to_owned(), |port| port.to_string())),
                ("[bus] tap", bus.tap.to_string()),
                ("[bus] require_isolation", bus.require_isolation.to_string()),
                ("[http] listen", config.http.listen.to_string()),
                ("[api] listen", config.api.listen.to_string()),
                ("[runtimes] keep_versions", config.runtimes.keep_versions.to_string()),
                ("[runtimes] enforce", config.runtimes.enforce.to_string()),
                ("[webhooks] timeout", duration_text(config.webhooks.timeout)),
                ("[webhooks] allow_private", config.webhooks.allow_private.to_string()),
            ]
        };
        let pairs = fixed(self).into_iter().zip(fixed(new));
        pairs.filter(|(old, new)| old != new).map(|((key, from), (_, to))| NeedsRestart { key, from, to }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_new_address_waits_for_a_restart_and_a_new_limit_does_not() {
        let parse = |text| Config::parse(text, Path::new("/")).unwrap();
        let old = parse("");
        assert_eq!(old, parse("timezone = \"UTC\"\n[http]\nlisten = \"127.0.0.1:8080\""));
        let new = parse(
            "[http]\nlisten = \"127.0.0.1:9090\"\nmax_body = \"1MB\"\n[bus]\nnamespace = \"shop\"\n\
                         [webhooks]\nallow_private = true",
        );
        let said: Vec<_> = old.needs_restart(&new).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "`[bus] namespace` changed from fnbus to shop: restart fnbus for it to take effect",
                "`[http] listen` changed from 127.0.0.1:8080 to 127.0.0.1:9090: restart fnbus for it to take effect",
                "`[webhooks] allow_private` changed from false to true: restart fnbus for it to take effect",
            ]
        );
    }
}
