//! `https://…`: posted with the event's attributes as `ce-` headers and Standard Webhooks' id and timestamp. Redirects
//! are not followed, and private addresses are refused unless the config allows them: who can name a target could
//! otherwise reach whatever this machine can reach.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::LOCATION,
    redirect::Policy,
};

use super::{Refused, Sent};
use crate::{cloudevent, config::duration_text, log::backlog::Due};

/// Of an answer so much is kept with the attempt; the rest is not read.
const ANSWER: usize = 64 * 1024;
/// So much of what it says is told in an error.
const SAID: usize = 200;

/// `[webhooks]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Webhooks {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Whether loopback and private addresses may be posted to, and `http:` used.
    pub allow_private: bool,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), allow_private: false }
    }
}

pub(super) struct Poster {
    client: Option<Client>,
    webhooks: Webhooks,
}

impl Poster {
    pub(super) fn new(webhooks: Webhooks) -> Self {
        // One provider for the whole tree; a second installation is refused, and says nothing new.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(webhooks.timeout)
            .user_agent(concat!("fnbus/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Checked { allow_private: webhooks.allow_private }))
            .build();
        let client = client.inspect_err(|error| tracing::error!(%error, "webhooks cannot be sent"));
        Self { client: client.ok(), webhooks }
    }

    pub(super) async fn post(&self, url: &str, due: &Due) -> Sent {
        let Some(client) = &self.client else { return Err(Refused::new("Webhook.Client", "no TLS client")) };
        let url: Url = url.parse().map_err(|_| Refused::new("Webhook.Url", format!("{url} is not a URL")))?;
        self.check(&url)?;
        let mut request = client
            .post(url)
            .header("webhook-id", due.id.to_string())
            .header("webhook-timestamp", chrono::Utc::now().timestamp())
            .body(due.event.data.clone());
        let kind = due.event.datacontenttype.as_deref().unwrap_or("application/octet-stream");
        request = request.header("content-type", kind);
        let mut headers = Vec::new();
        cloudevent::nats::each_header(&due.event, |name, value| {
            if name != "ce-datacontenttype" {
                headers.push((name.to_owned(), value.to_owned()));
            }
        });
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(|error| self.explained(&error))?;
        let status = response.status();
        let mut answer = BytesMut::new();
        let mut cut = None;
        while answer.len() < ANSWER {
            match response.chunk().await {
                Ok(Some(chunk)) => answer.extend_from_slice(&chunk[..chunk.len().min(ANSWER - answer.len())]),
                Ok(None) => break,
                Err(error) => {
                    cut = Some(error);
                    break;
                }
            }
        }
        match cut {
            None if status.is_success() => Ok(answer.freeze()),
            // What answers is the next step's input: half of it is none.
            Some(error) if status.is_success() => {
                let how = if error.is_timeout() {
                    format!("did not end its answer within {}", duration_text(self.webhooks.timeout))
                } else {
                    "cut its answer short".to_owned()
                };
                Err(Refused::new("Webhook.Answer", format!("it answered {status} and {how}")))
            }
            _ => Err(refused_status(status, &response, &answer)),
        }
    }

    /// What went wrong before there was an answer: of the causes the one that says what to do.
    fn explained(&self, error: &reqwest::Error) -> Refused {
        if error.is_timeout() {
            let waited = duration_text(self.webhooks.timeout);
            return Refused::new("Webhook.Timeout", format!("it did not answer within {waited}"));
        }
        let causes: Vec<_> = causes(error).collect();
        for cause in &causes {
            match cause.downcast_ref() {
                Some(missing @ NoAddress::Unknown { .. }) => return Refused::new("Webhook.Name", missing.to_string()),
                Some(refused @ NoAddress::Private { .. }) => {
                    return Refused::new("Webhook.PrivateAddress", refused.to_string());
                }
                None => {}
            }
            if let Some(tls) = cause.downcast_ref() {
                return Refused::new("Webhook.Tls", explained_tls(tls));
            }
        }
        let last = causes.last().map(ToString::to_string).unwrap_or_default();
        if error.is_connect() {
            Refused::new("Webhook.Connect", format!("it cannot be connected to: {last}; is it running?"))
        } else {
            Refused::new("Webhook.Failed", format!("it gave no answer that is one: {last}"))
        }
    }

    /// What a resolver is never asked: the scheme, and hosts that are addresses already.
    fn check(&self, url: &Url) -> Result<(), Refused> {
        if url.scheme() != "https" && !self.webhooks.allow_private {
            return Err(Refused::new("Webhook.Url", "only https is allowed; see [webhooks] allow_private"));
        }
        let address: Option<IpAddr> = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        match address {
            Some(address) if !self.webhooks.allow_private && !is_public(address) => Err(refused_address(address)),
            _ => Ok(()),
        }
    }
}

fn refused_address(address: IpAddr) -> Refused {
    let message = format!("{address} is not a public address; allow it with [webhooks] allow_private = true");
    Refused::new("Webhook.PrivateAddress", message)
}

fn refused_status(status: StatusCode, response: &Response, answer: &[u8]) -> Refused {
    let mut message = format!("it answered {status}");
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
        let to = to.map(|to| format!(" to {}", &to[..to.floor_char_boundary(SAID)])).unwrap_or_default();
        message = format!("{message}{to}; redirects are not followed, so name the address it moved to as the target");
    } else if !answer.is_empty() {
        message = format!("{message}: {}", String::from_utf8_lossy(&answer[..answer.len().min(SAID)]));
    }
    Refused::new("Webhook.Status", message)
}

/// The causes of an error, itself first. What an I/O error wraps is one of them.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// Why a name cannot be connected to.
#[derive(Debug, thiserror::Error)]
enum NoAddress {
    #[error("the host `{name}` was not found ({error}); is it written as its owner does?")]
    Unknown { name: String, error: io::Error },
    #[error("{name} has no public address; allow private ones with [webhooks] allow_private = true")]
    Private { name: String },
}

/// What is wrong with the other side's TLS, and what to do.
fn explained_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => format!(
            "its certificate is not accepted ({why:?}); give it one of an authority that this machine trusts, or add \
             its authority to those of the system"
        ),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS; is it an http:// address?".to_owned()
        }
        other => format!("no TLS connection: {other}"),
    }
}

/// Resolves names and gives only addresses that may be connected to: what is checked is what is connected.
struct Checked {
    allow_private: bool,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = found.map_err(|error| NoAddress::Unknown { name: host.clone(), error })?;
            let allowed: Vec<SocketAddr> = found.filter(|found| allow_private || is_public(found.ip())).collect();
            if allowed.is_empty() {
                return Err(NoAddress::Private { name: host }.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the internet at large.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || a >= 240)
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4() {
                return is_public(IpAddr::V4(v4));
            }
            let [first, second, ..] = v6.segments();
            let nat64 = first == 0x64 && second == 0xff9b;
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || nat64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_at_large_are_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private} was taken for public");
        }
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public} was refused");
        }
    }

    #[test]
    fn odd_spellings_of_private_addresses_are_seen_through() {
        let poster = Poster::new(Webhooks::default());
        for url in ["https://127.1/", "https://2130706433/", "https://0x7f.1/", "https://[::ffff:7f00:1]/"] {
            assert!(poster.check(&url.parse().unwrap()).is_err(), "{url}");
        }
        assert!(poster.check(&"http://1.1.1.1/".parse().unwrap()).is_err());
        assert!(poster.check(&"https://1.1.1.1/".parse().unwrap()).is_ok());
    }
}
