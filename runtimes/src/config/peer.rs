//! A host that a function may send requests to.

use std::{fmt, str::FromStr};

use bus::config::{FromValue, Shape, Value, Wrong};
use hyper::http::uri::{Authority, Scheme};
use serde::{Deserialize, Serialize};

/// A host, and the port there; none: that of the scheme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Lower-case; an address of IPv6 in its brackets.
    host: String,
    port: Option<u16>,
}

impl Peer {
    /// Whether it is the one that is asked.
    #[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "WebAssembly asks"))]
    pub(crate) fn is(&self, asked: &Authority, scheme: Option<&Scheme>) -> bool {
        let usual = if scheme == Some(&Scheme::HTTP) { 80 } else { 443 };
        let (ours, asks) = (self.port.unwrap_or(usual), asked.port_u16().unwrap_or(usual));
        self.host.eq_ignore_ascii_case(asked.host()) && ours == asks
    }
}

impl FromStr for Peer {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let authority: Authority = text.parse().map_err(|_| ())?;
        let (host, port) = (authority.host().to_ascii_lowercase(), authority.port_u16());
        let written = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        // no user before it and no port of another form behind it; a star stands for nothing here
        let plain = written.eq_ignore_ascii_case(text) && !host.contains('*');
        if plain { Ok(Self { host, port }) } else { Err(()) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromValue for Peer {
    fn from_value(value: &Value<'_>, shape: &Shape) -> Result<Self, Wrong> {
        let text = String::from_value(value, shape)?;
        text.parse().map_err(|()| {
            let wrong = Wrong::sentence(format!("`{text}` is not a host")).label("not a host");
            wrong
                .advice("write \"api.example.com\", or with a port \"127.0.0.1:8080\"; each host is named, without `*`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_asked_at_its_port_or_at_that_of_the_scheme() {
        let asks = |peer: &str, asked: &str, scheme: &Scheme| {
            peer.parse::<Peer>().unwrap().is(&asked.parse().unwrap(), Some(scheme))
        };
        for (peer, asked, scheme) in [
            ("api.example.com", "api.example.com", Scheme::HTTPS),
            ("API.example.com", "api.EXAMPLE.com:443", Scheme::HTTPS),
            ("api.example.com", "api.example.com:80", Scheme::HTTP),
            ("api.example.com:80", "api.example.com", Scheme::HTTP),
            ("127.0.0.1:8080", "127.0.0.1:8080", Scheme::HTTP),
            ("[::1]:8080", "[::1]:8080", Scheme::HTTP),
        ] {
            assert!(asks(peer, asked, &scheme), "{peer} {asked}");
        }
        for (peer, asked, scheme) in [
            ("api.example.com", "api.example.com:8080", Scheme::HTTPS),
            ("api.example.com", "example.com", Scheme::HTTPS),
            ("example.com", "api.example.com", Scheme::HTTPS),
            ("127.0.0.1:8080", "127.0.0.1", Scheme::HTTP),
            ("127.0.0.1:8080", "localhost:8080", Scheme::HTTP),
            ("api.example.com", "user@api.example.com.evil", Scheme::HTTPS),
        ] {
            assert!(!asks(peer, asked, &scheme), "{peer} {asked}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", "https://a", "a/b", "*.example.com", "user@host", "a:", "a:99999", "a b"] {
            assert!(text.parse::<Peer>().is_err(), "{text:?}");
        }
        assert_eq!("Example.com:81".parse::<Peer>().unwrap().to_string(), "example.com:81");
    }
}
