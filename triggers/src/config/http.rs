//! Reads `[http]`.

use bus::config::{Reader, Section, Size};

use super::{HttpConfig, keys};

impl HttpConfig {
    pub fn section() -> &'static Section {
        &keys::HTTP
    }

    pub fn read(reader: Reader<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            listen: reader.get_or("listen", default.listen),
            max_body: reader.get_or("max_body", Size(default.max_body)).0,
        };
        reader.finish();
        config
    }
}
