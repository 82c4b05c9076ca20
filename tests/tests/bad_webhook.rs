//! Receivers of webhooks that are away, slow, elsewhere or not what they seem: each failed attempt says why in words that
//! lead on, nothing that was accepted is lost, and what goes elsewhere is not held up.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use fnbus_tests::{Node, Project};
use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks";

/// What a receiver does with a post it has read.
#[derive(Clone, Copy)]
enum Does {
    Says(&'static str),
    /// The same, whatever comes.
    SaysAtOnce(&'static str),
    /// Leaves the connection open.
    Nothing,
    /// Begins to answer, and goes on a byte at a time, for ever.
    Drips,
    /// The same as fast as it is read.
    Floods,
}

/// A receiver of webhooks on loopback.
struct Receiver {
    address: SocketAddr,
    posts: UnboundedReceiver<String>,
}

impl Receiver {
    /// Does one thing with each post, and the last with all that follow.
    async fn start(does: &'static [Does]) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), does).await
    }

    async fn on(address: SocketAddr, does: &'static [Does]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, posts) = unbounded_channel();
        tokio::spawn(async move {
            let mut each = does.iter().chain(std::iter::repeat(does.last().unwrap()));
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, does) = (seen.clone(), *each.next().unwrap());
                tokio::spawn(async move {
                    let whole = !matches!(does, Does::SaysAtOnce(_));
                    let _ = seen.send(read(&mut stream, whole).await);
                    answer(&mut stream, does).await
                });
            }
        });
        Self { address, posts }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next post, head and body.
    async fn post(&mut self) -> String {
        tokio::time::timeout(fnbus_tests::PATIENCE, self.posts.recv()).await.expect("it is posted to").unwrap()
    }
}

async fn read(stream: &mut TcpStream, whole_post: bool) -> String {
    let mut text = Vec::new();
    loop {
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n") {
            let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return whole;
            }
        }
        if (!whole_post && !whole.is_empty()) || stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
            return whole;
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, v)| v)
}

async fn answer(stream: &mut TcpStream, does: Does) -> std::io::Result<()> {
    const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
    match does {
        Does::Says(text) | Does::SaysAtOnce(text) => return stream.write_all(text.as_bytes()).await,
        Does::Nothing => {}
        Does::Drips => {
            stream.write_all(ENDLESS).await?;
            loop {
                stream.write_all(b".").await?;
                // The pace of the dripping, not a wait for anything.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        Does::Floods => {
            stream.write_all(ENDLESS).await?;
            loop {
                stream.write_all(&[b'.'; 8192]).await?;
            }
        }
    }
    // Held until the other side goes.
    stream.read_u8().await.map(drop)
}

/// A route `POST /NAME` for each URL, which is a step with one attempt: what fails ends at once.
fn posting(to: &[(&str, &str)]) -> Project {
    let mut project = Project::new();
    for (name, url) in to {
        project = project.config(&format!(
            "[triggers.{name}]\nhttp = 'POST /{name}'\nmode = 'async'\npayload = 'body'\nto = '{name}'\n\
             [pipelines.{name}]\nsteps = [{{ run = '{url}', retry = {{ attempts = 1 }} }}]\n"
        ));
    }
    project
}

fn allowed(project: Project, timeout: &str) -> Project {
    project.config(&format!("[webhooks]\nallow_private = true\ntimeout = '{timeout}'\n"))
}

/// The error of the attempt that ended an event: its kind and its words. Also what a person reads has them.
async fn refusal(node: &Node, id: &str) -> (String, String) {
    let event = node.event_is(id, "dead").await;
    let post = event["deliveries"].as_array().unwrap().iter().find(|d| d["target"].as_str().unwrap().contains("://"));
    let error = post.expect("a delivery to the receiver")["attempts"][0]["error"].clone();
    let (kind, message) = (error["kind"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned());
    assert!(node.fnbus(&["show", id]).await.stdout.contains(&message), "{message}");
    (kind, message)
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_the_dead_letter_when_it_is_back() {
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap()
    };
    let project = Project::new().config(&format!(
        "[triggers.go]\nhttp = 'POST /go'\nmode = 'async'\npayload = 'body'\nto = 'http://{address}/hook'\n"
    ));
    let node = allowed(project, "2s").start().await;
    let id = node.accepted("/go", r#"{"n":1.10}"#).await;
    let (kind, message) = refusal(&node, &id).await;
    assert_eq!(kind, "Webhook.Connect");
    assert!(message.contains("Connection refused") && message.contains("is it running?"), "{message}");
    let letter = node.json(&["dead", "list", "--json"]).await.remove(0);
    assert_eq!((&letter["attempts"], &letter["reason"]), (&json!(3), &json!("attempts_exhausted")));
    let mut back = Receiver::on(address, &[Does::Says(OK)]).await;
    assert_eq!(node.fnbus(&["dead", "redrive", &id]).await.code(), 0);
    let post = back.post().await;
    assert!(post.ends_with("\r\n\r\n{\"n\":1.10}") && header(&post, "ce-id") == Some(&id), "{post}");
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["deliveries"][1]["attempts"][0]["output"], "thanks");
    assert!(node.json(&["dead", "list", "--json"]).await.is_empty());
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_given_up_in_time_and_holds_up_no_other() {
    let mute = Receiver::start(&[Does::Nothing]).await;
    let quick = Receiver::start(&[Does::Says(OK)]).await;
    let node = allowed(posting(&[("mute", &mute.url()), ("quick", &quick.url())]), "4s").start().await;
    let mut waiting = Vec::new();
    // More than may be on their way to one receiver.
    for _ in 0..20 {
        waiting.push(node.accepted("/mute", "1").await);
    }
    node.event_is(&waiting[0], "running").await;
    let id = node.accepted("/quick", "1").await;
    node.event_is(&id, "done").await;
    assert_eq!(node.show(&waiting[0]).await["status"], "running", "the quick one had to wait for the mute one");
    let (kind, message) = refusal(&node, &waiting[0]).await;
    assert_eq!((kind.as_str(), message.as_str()), ("Webhook.Timeout", "it did not answer within 4s"));
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_in_time_and_in_size() {
    let drips = Receiver::start(&[Does::Drips]).await;
    let floods = Receiver::start(&[Does::Floods]).await;
    let node = allowed(posting(&[("drips", &drips.url()), ("floods", &floods.url())]), "1s").start().await;
    let (dripping, flooding) = tokio::join!(node.accepted("/drips", "1"), node.accepted("/floods", "1"));
    let event = node.event_is(&flooding, "done").await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap().len(), 64 * 1024);
    let (kind, message) = refusal(&node, &dripping).await;
    assert_eq!(kind, "Webhook.Answer");
    assert_eq!(message, "it answered 200 OK and did not end its answer within 1s");
}

#[rstest]
#[case::moved("HTTP/1.1 301 Moved Permanently\r\nlocation: ELSEWHERE\r\n\r\n", "301 Moved Permanently")]
#[case::repost("HTTP/1.1 307 Temporary Redirect\r\nlocation: ELSEWHERE\r\n\r\n", "307 Temporary Redirect")]
#[tokio::test]
async fn a_redirect_is_not_followed_and_the_login_goes_nowhere_else(
    #[case] redirect: &'static str,
    #[case] status: &str,
) {
    let mut elsewhere = Receiver::start(&[Does::Says(OK)]).await;
    let redirect: &'static str = redirect.replace("ELSEWHERE", &elsewhere.url()).leak();
    let mut moved = Receiver::start(vec![Does::Says(redirect)].leak()).await;
    let url = moved.url().replace("//", "//me:hush@");
    let node = allowed(posting(&[("go", &url)]), "2s").start().await;
    let id = node.accepted("/go", "1").await;
    let (kind, message) = refusal(&node, &id).await;
    assert!(header(&moved.post().await, "authorization").unwrap().starts_with("Basic "));
    assert_eq!(kind, "Webhook.Status");
    let says = format!(
        "it answered {status} to {}; redirects are not followed, so name the address it moved to as the target",
        elsewhere.url()
    );
    assert_eq!(message, says);
    assert!(elsewhere.posts.try_recv().is_err(), "it was followed");
}

#[rstest]
#[case::broken(
    "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops",
    "it answered 500 Internal Server Error: oops"
)]
#[case::busy("HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n\r\n", "it answered 429 Too Many Requests")]
#[case::nonsense("SSH-2.0-OpenSSH\r\n", "it gave no answer that is one: ")]
#[case::nothing("", "it gave no answer that is one: ")]
#[tokio::test]
async fn what_is_not_taken_is_posted_again_under_the_same_id(#[case] first: &'static str, #[case] says: &str) {
    let mut receiver = Receiver::start(vec![Does::Says(first), Does::Says(OK)].leak()).await;
    let project = Project::new().config(&format!(
        "[triggers.go]\nhttp = 'POST /go'\nmode = 'async'\nto = 'p'\n\
         [pipelines.p]\nsteps = [{{ run = '{}', retry = {{ attempts = 2, wait = '10ms' }} }}]\n",
        receiver.url()
    ));
    let node = allowed(project, "2s").start().await;
    let id = node.accepted("/go", "1").await;
    let (one, two) = (receiver.post().await, receiver.post().await);
    assert_eq!(header(&one, "webhook-id"), header(&two, "webhook-id"));
    let event = node.event_is(&id, "done").await;
    let attempts = event["deliveries"][1]["attempts"].as_array().unwrap();
    assert_eq!((&attempts[0]["outcome"], &attempts[1]["outcome"]), (&json!("error"), &json!("ok")));
    assert!(attempts[0]["error"]["message"].as_str().unwrap().starts_with(says), "{}", attempts[0]["error"]);
}

#[tokio::test]
async fn a_receiver_that_does_not_speak_tls_is_said_and_gets_nothing_to_read() {
    let mut plain = Receiver::start(&[Does::SaysAtOnce("HTTP/1.1 400 Bad Request\r\n\r\n")]).await;
    let url = plain.url().replace("http", "https");
    let node = allowed(posting(&[("go", &url)]), "2s").start().await;
    let id = node.accepted("/go", "very private").await;
    let (kind, message) = refusal(&node, &id).await;
    assert_eq!(kind, "Webhook.Tls");
    assert_eq!(message, "what answers there does not speak TLS; is it an http:// address?");
    assert!(!plain.post().await.contains("very private"));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_accepted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let read = std::thread::spawn(move || {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        let mut stream = rustls::Stream::new(&mut tls, &mut stream);
        let _ = stream.read_to_string(&mut text);
        let _ = stream.flush();
        text
    });
    let url = format!("https://localhost:{port}/hook");
    let node = allowed(posting(&[("go", &url)]), "5s").start().await;
    let id = node.accepted("/go", "very private").await;
    let (kind, message) = refusal(&node, &id).await;
    assert_eq!(kind, "Webhook.Tls");
    for words in ["its certificate is not accepted", "an authority that this machine trusts"] {
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(read.join().unwrap(), "", "it was told something all the same");
}

#[tokio::test]
async fn a_host_without_an_address_is_named() {
    let node = posting(&[("go", "https://no-such-host.invalid/hook")]).start().await;
    let id = node.accepted("/go", "1").await;
    let (kind, message) = refusal(&node, &id).await;
    assert_eq!(kind, "Webhook.Name");
    assert!(message.starts_with("the host `no-such-host.invalid` was not found ("), "{message}");
    assert!(message.ends_with("is it written as its owner does?"), "{message}");
}

#[tokio::test]
async fn private_addresses_are_not_connected_to_unless_that_is_allowed_and_each_refusal_names_the_key() {
    let mut receiver = Receiver::start(&[Does::Says(OK)]).await;
    let port = receiver.address.port();
    let urls = [
        ("plain", format!("http://127.0.0.1:{port}/"), "Webhook.Url"),
        ("address", format!("https://127.0.0.1:{port}/"), "Webhook.PrivateAddress"),
        ("name", format!("https://localhost:{port}/"), "Webhook.PrivateAddress"),
        ("spelling", format!("https://0x7f.1:{port}/"), "Webhook.PrivateAddress"),
        ("network", "https://169.254.169.254/latest/meta-data".to_owned(), "Webhook.PrivateAddress"),
    ];
    let to: Vec<(&str, &str)> = urls.iter().map(|(name, url, _)| (*name, url.as_str())).collect();
    let node = posting(&to).start().await;
    for (name, _, expected) in &urls {
        let id = node.accepted(&format!("/{name}"), "1").await;
        let (kind, message) = refusal(&node, &id).await;
        assert_eq!(kind, *expected, "{name}");
        assert!(message.contains("[webhooks] allow_private"), "{name}: {message}");
    }
    assert!(receiver.posts.try_recv().is_err(), "it was connected to");
    // What was refused is a dead letter, and goes out when it may.
    let mut node = node;
    let allowing = format!("{}[webhooks]\nallow_private = true\n", node.project().toml());
    node.reconfigure(&allowing).await;
    node.says("`[webhooks] allow_private` changed from false to true: restart fnbus").await;
    node.stop().await;
    node.restart().await;
    let letters = node.json(&["dead", "list", "--json"]).await;
    assert_eq!(letters.len(), urls.len());
    let plain = letters.iter().find(|letter| letter["target"] == "plain").unwrap()["event"].as_str().unwrap();
    assert_eq!(node.fnbus(&["dead", "redrive", plain]).await.code(), 0);
    assert!(receiver.post().await.ends_with("\r\n\r\n1"));
    node.event_is(plain, "done").await;
    assert_eq!(node.json(&["dead", "list", "--json"]).await.len(), urls.len() - 1);
}

/// Of nobody, for `localhost`, until 2126.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUFUKhcKbjdJaXv9rJExOS5nQBAk0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNzE5MjAzNVoYDzIxMjYxMTAz
MTkyMDM1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATUGn1oHrEvvRqQp9AJ7qJsFw1+ZnL6iS64V2P1l/D06HQptdWlum70
ef0BDb2CD65By61GnL6jzSfvkS14yEb4o28wbTAdBgNVHQ4EFgQUQoOM+O1s5sFz
8rEn0kgGHdhXfvIwHwYDVR0jBBgwFoAUQoOM+O1s5sFz8rEn0kgGHdhXfvIwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgSXV8VnrCKpWPfaBObBC6U+Y5OL+LxDwh/JaQBauKutQCIEYp
xpDeyteGuNeyIaB+T0qKVSrnwc/mIJCuODd2stYF
-----END CERTIFICATE-----
";

/// Its key, which opens nothing else.
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2j+8/h+BKiGfk5pm
Mpol7rpuc/8Jclh5XRZShMHih96hRANCAATUGn1oHrEvvRqQp9AJ7qJsFw1+ZnL6
iS64V2P1l/D06HQptdWlum70ef0BDb2CD65By61GnL6jzSfvkS14yEb4
-----END PRIVATE KEY-----
";
