//! The connection to venus: where it is, and how it is talked to without ever hanging.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use coda_proto::control::{
    ANSWER_LIMIT, Answer, Ask, Event, Failure, FailureKind, Greeting, Reply, Request, VERSION,
};

use crate::Venus;

/// What a failure names when it is about reaching venus itself.
pub const VENUS: &str = "venus";

/// venus gives up after a minute; somewhat later so do we.
const PATIENCE: Duration = Duration::from_secs(75);
/// A venus that is well greets at once.
const GREETING: Duration = Duration::from_secs(5);

/// Connects to the socket named (by `--socket`, else one of `$CODA_CONTROL`, which has `:` between several),
/// else to one of the usual places: the first that serves the path hinted at, or the first that answers.
pub fn connect(named: Option<&Path>, hint: Option<&Path>) -> Result<Box<dyn Venus>, Failure> {
    let places = match (named, env::var_os("CODA_CONTROL")) {
        (Some(named), _) => vec![named.to_owned()],
        (None, Some(several)) => env::split_paths(&several).collect(),
        (None, None) => usual(),
    };
    let mut first = None;
    let mut why = Vec::new();
    for place in &places {
        match Socket::open(place) {
            Ok(socket) if hint.is_none_or(|hint| hint.starts_with(&socket.mountpoint)) => {
                return Ok(Box::new(socket));
            }
            Ok(socket) => first = first.or(Some(socket)),
            Err(failure) => why.push(failure),
        }
    }
    match (first, why.pop()) {
        (Some(socket), _) => Ok(Box::new(socket)),
        (None, Some(failure)) if places.len() == 1 => Err(failure),
        (None, _) => Err(trouble(
            format!("not running: nothing answers at {}", listed(&places)),
            "start it with `venus`, or name its socket with --socket or $CODA_CONTROL",
        )),
    }
}

fn listed(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn usual() -> Vec<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let runtime = variable("XDG_RUNTIME_DIR");
    let state = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let own = coda_proto::control::socket(false, runtime.as_deref());
    let fallback = state.map(|state| state.join("coda/venus.sock"));
    let system = coda_proto::control::socket(true, None);
    own.into_iter().chain(fallback).chain(system).collect()
}

fn trouble(why: String, next: &str) -> Failure {
    Failure { kind: FailureKind::Io, what: VENUS.into(), why, next: next.into() }
}

/// A conversation.
pub struct Socket {
    stream: BufReader<UnixStream>,
    mountpoint: PathBuf,
}

impl Socket {
    /// Connects and hears the greeting.
    pub fn open(place: &Path) -> Result<Socket, Failure> {
        let stream = UnixStream::connect(place).map_err(|error| {
            trouble(
                format!("not running: {}: {error}", place.display()),
                "start it with `venus`, or name its socket with --socket or $CODA_CONTROL",
            )
        })?;
        let set = |stream: &UnixStream, time| stream.set_read_timeout(Some(time));
        set(&stream, GREETING).map_err(broken)?;
        let mut socket = Socket { stream: BufReader::new(stream), mountpoint: PathBuf::new() };
        let greeting: Greeting = socket.hear()?;
        if greeting.control != VERSION {
            let why = format!("venus {} speaks version {} on its socket", greeting.venus, greeting.control);
            return Err(trouble(why, "use the cfs that came with this venus"));
        }
        set(socket.stream.get_ref(), PATIENCE).map_err(broken)?;
        socket.mountpoint = greeting.mountpoint.into();
        Ok(socket)
    }

    fn send(&mut self, request: Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(&Ask { control: VERSION, request }).expect("plain data");
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(broken)
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let mut line = Vec::new();
        let limit = ANSWER_LIMIT as u64 + 1;
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).map_err(broken)?;
        match line.last() {
            None => Err(trouble("it hung up".into(), "its log says why")),
            Some(b'\n') => serde_json::from_slice(&line)
                .map_err(|error| trouble(format!("its answer makes no sense: {error}"), "")),
            Some(_) => Err(trouble("its answer has no end".into(), "")),
        }
    }
}

fn broken(error: std::io::Error) -> Failure {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    match error.kind() {
        TimedOut | WouldBlock => trouble("does not answer".into(), "its log says what it is doing"),
        _ => trouble(error.to_string(), ""),
    }
}

impl Venus for Socket {
    fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        self.send(request)?;
        match self.hear()? {
            Answer::Ok(reply) => Ok(reply),
            Answer::Failed(failure) => Err(failure),
            Answer::Event(_) => Err(trouble("it answers with an event".into(), "")),
        }
    }

    fn events(
        &mut self,
        recent: usize,
        follow: bool,
        each: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        // Quiet hours are no failure.
        self.stream.get_ref().set_read_timeout(None).map_err(broken)?;
        self.send(Request::Events { recent, follow })?;
        loop {
            match self.hear()? {
                Answer::Event(event) => {
                    if each(event).is_break() {
                        return Ok(());
                    }
                }
                Answer::Ok(_) => return Ok(()),
                Answer::Failed(failure) => return Err(failure),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn without_venus_the_failure_says_where_it_was_looked_for_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("venus.sock");
        let failure = connect(Some(&place), None).err().unwrap();
        assert!(failure.why.contains(&place.display().to_string()), "{}", failure.why);
        assert!(failure.next.contains("venus"));
        assert_eq!(crate::exit::Exit::of(&failure).code(), 2);
    }

    #[test]
    fn a_venus_that_hangs_up_or_speaks_another_version_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("venus.sock");
        let listener = UnixListener::bind(&place).unwrap();
        let greeted = |words: &'static str| {
            std::thread::scope(|scope| {
                let server =
                    scope.spawn(|| listener.accept().unwrap().0.write_all(words.as_bytes()).unwrap());
                let failure = connect(Some(&place), None).err().unwrap();
                server.join().unwrap();
                failure.why
            })
        };
        assert_eq!(greeted(""), "it hung up");
        assert!(greeted("{\"control\":7,\"venus\":\"9\",\"mountpoint\":\"/coda\"}\n").contains("version 7"));
        assert!(greeted("hello\n").contains("makes no sense"));
    }
}
