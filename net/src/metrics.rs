//! Numbers for Prometheus: how they are written, and the port of this machine that shows them.
//!
//! The port speaks just enough HTTP to answer `GET /metrics`. It has no lock on it, so it is bound to
//! loopback addresses only: who may see the numbers from elsewhere is another program's business.

use std::{
    fmt::{Display, Write as _},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// Answers under way at a time.
const AT_ONCE: usize = 8;
/// Bytes of a request's head, at most.
const HEAD: usize = 8 * 1024;
/// How long a scraper may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers as they are written.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// An empty page.
    pub fn new() -> Page {
        Page::default()
    }

    /// A number that goes up and down, without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A number that only grows while the program runs, without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// Begins numbers of one name, each with its labels.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number of a family.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Opens the port. Only a loopback address will do.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match address.ip().is_loopback() {
        true => TcpListener::bind(address).await,
        false => {
            let why = format!("{address}: metrics are shown on a loopback address only");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}

/// Shows a page, written anew each time, to whoever asks. Runs until it is dropped.
pub async fn serve<F, P>(listener: TcpListener, page: F)
where
    F: Fn() -> P + Send + Sync + 'static,
    P: Future<Output = String> + Send + 'static,
{
    let page = Arc::new(page);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: that passes, or it is not ours to repair.
                tracing::debug!(%error, "metrics: cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let page = page.clone();
        tokio::spawn(async move {
            let _ = timeout(PATIENCE, answer(stream, &*page)).await;
            drop(place);
        });
    }
}

async fn answer<P: Future<Output = String>>(mut stream: TcpStream, page: &impl Fn() -> P) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&piece[..read]),
        }
        if head.len() > HEAD {
            return reply(&mut stream, "431 Request Header Fields Too Large", "").await;
        }
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.split_whitespace();
    match (words.next(), words.next().map(|path| path.split('?').next().unwrap_or_default())) {
        (Some("GET"), Some("/metrics")) => reply(&mut stream, "200 OK", &page().await).await,
        (Some("GET"), _) => reply(&mut stream, "404 Not Found", "the numbers are at /metrics\n").await,
        _ => reply(&mut stream, "405 Method Not Allowed", "").await,
    }
}

async fn reply(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let mut page = Page::new();
        page.gauge("a", "An a.", 1);
        page.family("b_total", "counter", "Bs.");
        page.sample("b_total", &[("volume", "x\"y\\z\n"), ("state", "up")], 2.5);
        let expected = "# HELP a An a.\n# TYPE a gauge\na 1\n# HELP b_total Bs.\n# TYPE b_total counter\n\
                        b_total{volume=\"x\\\"y\\\\z\\n\",state=\"up\"} 2.5\n";
        assert_eq!(page.into_text(), expected);
    }

    #[tokio::test]
    async fn the_port_shows_the_page_and_nothing_else() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, || async { "a 1\n".to_owned() }));
        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\na 1\n"), "{answer}");
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(HEAD));
        assert!(ask(address, &long).await.starts_with("HTTP/1.1 431 "));
        serving.abort();
    }

    #[tokio::test]
    async fn only_loopback_addresses_will_do() {
        assert!(bind("0.0.0.0:0".parse().unwrap()).await.is_err());
        assert!(
            bind("[::1]:0".parse().unwrap()).await.is_ok()
                || bind("127.0.0.1:0".parse().unwrap()).await.is_ok()
        );
    }
}
