//! `[api]`.

use std::{net::SocketAddr, sync::LazyLock};

use bus::config::{Key, Reader, Section, Shape, Wrong};

/// Where the API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiConfig {
    /// Default `127.0.0.1:9001`.
    pub listen: SocketAddr,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9001)) }
    }
}

static API: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "The API of AWS Lambda, for its clients on this machine.",
    keys: vec![
        Key::new("listen", Shape::Address, "Where it is served; an address of this machine alone.")
            .default(ApiConfig::default().listen.to_string()),
    ],
    later: &[],
});

impl ApiConfig {
    pub fn section() -> &'static Section {
        &API
    }

    /// Reads the section.
    pub fn read(reader: Reader<'_>) -> Self {
        let default = Self::default();
        let config = Self { listen: reader.get_or("listen", default.listen) };
        if !config.listen.ip().is_loopback() {
            let wrong = Wrong::of_key("is an address that others reach, and the API does not ask who calls");
            reader.refuse("listen", &wrong.advice("use 127.0.0.1 or [::1]").label("not of this machine alone"));
        }
        reader.finish();
        config
    }
}
