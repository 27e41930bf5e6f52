//! `cfs hoard`, also called `hoard`: what is to be here when no server can be reached. And in fewer words:
//! `cfs pin`, `cfs unpin`, `cfs preflight`.

use std::{
    ffi::{OsStr, OsString},
    fs,
    time::Duration,
};

use coda_proto::control::{Failure, FailureKind, HoardReport, HoardWish, NotHere, Pinned, Reply, Request};

use super::{
    Command,
    status::{age, bytes as human},
};
use crate::{Talk, exit::Stop};

pub const COMMAND: Command = Command {
    name: "hoard",
    short: &[],
    usage: "hoard [-d] [-v] [-f file | - | 'commands' | command [args]]",
    about: "says what is to be kept here: add, delete, clear, list, walk, verify, on, off",
    run: |talk, mut args| {
        // Accepted, as ever: what they turned on is always on.
        let _ = (args.flag(&["-d"]), args.flag(&["-v"]));
        let file = args.value(&["-f"])?;
        let words: Vec<OsString> = args.collect();
        let text = match (&file, &words[..]) {
            (Some(file), []) => read(file)?,
            (None, [dash]) if dash == "-" => {
                let mut text = String::new();
                talk.input.read_to_string(&mut text).map_err(|error| unread("-", &error))?;
                text
            }
            (None, [_, ..]) => {
                let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                words.join(" ")
            }
            _ => return Err(Stop::Usage),
        };
        let mut orders = parse(&text).map_err(|line| wrong(&line, "parse error"))?;
        // All are read before any is followed; then they are followed kind by kind.
        orders.sort_by_key(Order::turn);
        let walks = orders.iter().position(|order| *order == Order::Walk);
        for (at, order) in orders.into_iter().enumerate() {
            // One walk is enough.
            if order != Order::Walk || walks == Some(at) {
                follow(talk, order);
            }
        }
        Ok(())
    },
};

pub const PIN: Command = Command {
    name: "pin",
    short: &[],
    usage: "cfs pin [--most SIZE] <path or 'pattern'> ...",
    about: "keeps all that is below the paths here, now and in future, and fetches it; refuses what cannot fit",
    run: |talk, mut args| {
        let most = args.value(&["--most", "-most"])?;
        let most = most.map(|word| word.to_str().and_then(size).ok_or(Stop::Usage)).transpose()?;
        let mut pinned = false;
        for path in args.rest(1, usize::MAX)? {
            let asked = talk.path(&path).and_then(|path| talk.ask(Request::Pin { path, most }));
            pinned |= asked.is_ok();
            talk.answer(Some(&path), asked, |reply| match reply {
                Reply::Pinned(pin) => format!("{}: {}", path.to_string_lossy(), pinned_text(pin)),
                _ => String::new(),
            });
        }
        if pinned {
            follow(talk, Order::Walk);
        }
        Ok(())
    },
};

pub const UNPIN: Command = Command {
    name: "unpin",
    short: &[],
    usage: "cfs unpin <path> [path ...]",
    about: "ends that: the paths are kept no longer than anything else",
    run: |talk, args| {
        for path in args.rest(1, usize::MAX)? {
            let asked = talk.path(&path).and_then(|path| talk.ask(Request::HoardDelete { path }));
            talk.answer(Some(&path), asked, |_| String::new());
        }
        Ok(())
    },
};

pub const PREFLIGHT: Command = Command {
    name: "preflight",
    short: &[],
    usage: "cfs preflight [--fetch] [path]",
    about: "says what of a path, or of all that is wanted here, is missing, with sizes and time; --fetch fetches what is wanted first",
    run: |talk, mut args| {
        let fetch = args.flag(&["--fetch"]);
        let typed = args.rest(0, 1)?;
        let below = typed.first().map(|path| talk.path(path)).transpose()?;
        let mut asked = if fetch { walked(talk) } else { talk.ask(Request::HoardVerify) };
        if let (Ok(_), Some(path)) = (&asked, below) {
            asked = talk.ask(Request::Preflight { path });
        }
        let Reply::HoardReport(report) = asked? else { return Ok(()) };
        let path = typed.first().map(|path| path.to_string_lossy());
        let (text, ready) = (preflight(&report, path.as_deref()), report.missing.is_empty());
        let next = match report.unkept {
            0 => "`cfs preflight --fetch` fetches what can be had".to_owned(),
            _ => format!("`cfs pin {}` fetches it and keeps it here", path.unwrap_or_default()),
        };
        talk.answer(None, Ok(Reply::HoardReport(report)), |_| text);
        match ready {
            true => Ok(()),
            false => Err(Stop::Failed(Failure {
                kind: FailureKind::Disconnected,
                what: "preflight".into(),
                why: "not everything that is wanted is here".into(),
                next,
            })),
        }
    },
};

/// One line of a hoard file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    Clear(Option<u32>),
    Add(OsString, String),
    Delete(OsString),
    List(Option<OsString>, Option<u32>),
    Walk,
    Verify(Option<OsString>, u32),
    Switch(bool),
}

impl Order {
    /// Kinds in the order in which they are followed.
    fn turn(&self) -> u8 {
        match self {
            Order::Clear(_) => 0,
            Order::Add(..) => 1,
            Order::Delete(_) => 2,
            Order::List(..) => 3,
            Order::Walk => 4,
            Order::Verify(..) => 5,
            Order::Switch(true) => 6,
            Order::Switch(false) => 7,
        }
    }
}

/// The orders of a text, or the first line that is none.
fn parse(text: &str) -> Result<Vec<Order>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| order(line).ok_or_else(|| line.to_owned())).collect()
}

fn order(line: &str) -> Option<Order> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let path = |at: usize| words.get(at).map(OsString::from);
    let number = |at: usize| words.get(at).map(|word| word.parse().ok());
    let (first, count) = (*words.first()?, words.len());
    Some(match first {
        "add" | "a" if count <= 3 => {
            Order::Add(path(1)?, words.get(2).map_or(String::new(), |word| (*word).to_owned()))
        }
        "clear" | "c" if count <= 2 => Order::Clear(number(1).map_or(Some(None), |n| n.map(Some))?),
        "delete" | "d" if count == 2 => Order::Delete(path(1)?),
        "list" | "l" if count <= 3 => Order::List(path(1), number(2).map_or(Some(None), |n| n.map(Some))?),
        "modify" | "m" => return None,
        "walk" | "w" if count == 1 => Order::Walk,
        "verify" | "v" if count <= 4 => Order::Verify(path(1), number(2).map_or(Some(0), |n| n)?),
        "on" if count == 1 => Order::Switch(true),
        "off" if count == 1 => Order::Switch(false),
        _ => return None,
    })
}

fn follow(talk: &mut Talk<'_>, order: Order) {
    match order {
        Order::Clear(uid) => done(talk, None, Request::HoardClear { uid }),
        Order::Add(path, attributes) => match talk.path(&path) {
            Ok(absolute) => done(talk, Some(&path), Request::HoardAdd { path: absolute, attributes }),
            Err(failure) => talk.failed(Some(&path), &failure),
        },
        Order::Delete(path) => match talk.path(&path) {
            Ok(absolute) => done(talk, Some(&path), Request::HoardDelete { path: absolute }),
            Err(failure) => talk.failed(Some(&path), &failure),
        },
        Order::List(out, uid) => {
            let answer = talk.ask(Request::HoardList { uid });
            show(talk, answer, out, |reply| match reply {
                Reply::Hoard(wishes) => wishes.iter().map(list_line).collect(),
                _ => String::new(),
            });
        }
        Order::Walk => {
            let answer = walked(talk);
            show(talk, answer, None, |reply| match reply {
                Reply::HoardReport(report) => verify_text(report),
                _ => String::new(),
            });
        }
        Order::Verify(out, verbosity) => {
            let answer = talk.ask(Request::HoardVerify);
            show(talk, answer, out, |reply| match reply {
                Reply::HoardReport(report) if verbosity > 0 && report.missing.is_empty() => {
                    format!("{:>25}  {} objects, {} bytes\n", "OK", report.objects, report.bytes)
                }
                Reply::HoardReport(report) => verify_text(report),
                _ => String::new(),
            });
        }
        Order::Switch(on) => done(talk, None, Request::HoardSwitch { on }),
    }
}

/// Begins a walk and waits for its end.
fn walked(talk: &mut Talk<'_>) -> Result<Reply, Failure> {
    let mut answer = talk.ask(Request::HoardWalk);
    let mut drawn = false;
    while let Ok(Reply::HoardReport(report @ HoardReport { walking: true, .. })) = &answer {
        talk.progress(&bar(report));
        drawn = true;
        std::thread::sleep(Duration::from_millis(200));
        answer = talk.ask(Request::HoardVerify);
    }
    if drawn {
        talk.progress("");
    }
    answer
}

/// How much of what is wanted is here. Both grow while directories are met that nobody had looked into.
fn bar(report: &HoardReport) -> String {
    const WIDTH: usize = 30;
    let missing = report.missing.len() as u64;
    let (here, total) = (report.objects.saturating_sub(missing), report.objects);
    let lacking: u64 = report.missing.iter().map(|missing| missing.bytes).sum();
    let (bytes, wanted) = (report.bytes, report.bytes + lacking);
    // Bytes are what takes time; where nothing has any, names are.
    let (part, whole) = if wanted > 0 { (bytes, wanted) } else { (here, total) };
    let full = (u128::from(part) * WIDTH as u128 / u128::from(whole.max(1))) as usize;
    let (done, left) = ("#".repeat(full), ".".repeat(WIDTH - full));
    format!("[{done}{left}] {here} of {total} objects, {} of {}", human(bytes), human(wanted))
}

fn done(talk: &mut Talk<'_>, object: Option<&OsStr>, request: Request) {
    let answer = talk.ask(request);
    talk.answer(object, answer, |_| String::new());
}

/// Shows an answer, in a file where one is named.
fn show(
    talk: &mut Talk<'_>,
    answer: Result<Reply, Failure>,
    out: Option<OsString>,
    text: impl Fn(&Reply) -> String,
) {
    match (answer, out) {
        (Ok(reply), Some(out)) => {
            if let Err(error) = fs::write(&out, text(&reply)) {
                talk.failed(Some(&out), &unread(&out.to_string_lossy(), &error));
            }
        }
        (answer, _) => talk.answer(None, answer, text),
    }
}

/// `<volhex@realm, ./path>, uid, prio[:c+|:d+]`, as hoard always wrote it.
fn list_line(wish: &HoardWish) -> String {
    let reach = if wish.reach.is_empty() { String::new() } else { format!(":{}", wish.reach) };
    let HoardWish { volume, realm, inside, uid, priority, .. } = wish;
    format!("<{volume}@{realm}, {inside}>, {uid}, {priority}{reach}\n")
}

/// One line a problem: the reason on the right of 25 columns, then the path.
fn verify_text(report: &HoardReport) -> String {
    let line = |missing: &NotHere| {
        let reason = missing.why.split(':').next().unwrap_or_default();
        format!("{:>25}  {}\n", format!("*** {reason} ***"), missing.path)
    };
    report.missing.iter().map(line).collect()
}

/// `2 GB`, `500M`; a bare number counts bytes.
fn size(word: &str) -> Option<u64> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (number, unit) = (word[..end].parse::<u64>().ok()?, word[end..].trim().to_ascii_lowercase());
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn pinned_text(pin: &Pinned) -> String {
    let Pinned { objects, bytes, missing, left } = pin;
    let fetched =
        if *missing == 0 { String::new() } else { format!(", {} of it to be fetched", human(*missing)) };
    format!("{objects} objects, {}{fetched}; pins may take {} more\n", human(*bytes), human(*left))
}

fn preflight(report: &HoardReport, path: Option<&str>) -> String {
    let HoardReport { objects, bytes, room, missing, unkept, seconds, .. } = report;
    if missing.is_empty() {
        return match (path, unkept) {
            (None, _) if *objects == 0 => {
                "Nothing is to be kept here yet: `cfs pin PATH` says what, `cfs preflight PATH` looks at it\n"
                    .into()
            }
            (Some(path), 1..) => format!(
                "All of {path} is here: {objects} objects, {}. But it may go when room is needed: `cfs pin {path}` keeps it\n",
                human(*bytes)
            ),
            _ => {
                let (here, may) = (human(*bytes), human(*room));
                format!("Ready to go: {objects} objects, {here} of {may} that may be kept\n")
            }
        };
    }
    let line =
        |missing: &NotHere| format!("{:>12} bytes  {}  ({})\n", missing.bytes, missing.path, missing.why);
    let sum: u64 = missing.iter().map(|missing| missing.bytes).sum();
    let lines: String = missing.iter().map(line).collect();
    let time = seconds.map_or(String::new(), |seconds| format!(", about {} to fetch", age(seconds)));
    format!(
        "{lines}{} of {objects} objects are not here, {sum} bytes as far as is known{time}\n",
        missing.len()
    )
}

fn read(file: &OsStr) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| unread(&file.to_string_lossy(), &error))
}

fn unread(what: &str, error: &std::io::Error) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => FailureKind::NotFound,
        _ => FailureKind::Io,
    };
    Failure { kind, what: what.to_owned(), why: error.to_string(), next: String::new() }
}

fn wrong(line: &str, why: &str) -> Failure {
    let why = format!("{why}: {line}");
    Failure { kind: FailureKind::Invalid, what: "hoard".into(), why, next: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run, run_at};

    #[test]
    fn a_hoard_file_is_read_line_by_line_and_followed_kind_by_kind() {
        let orders = parse("# mine\nw\na src 600:d+\n\nclear 7\nlist\n").unwrap();
        let add = Order::Add("src".into(), "600:d+".into());
        assert_eq!(orders, [Order::Walk, add, Order::Clear(Some(7)), Order::List(None, None)]);
        let mut turns: Vec<_> = orders.iter().map(Order::turn).collect();
        turns.sort_unstable();
        assert_eq!(turns, [0, 1, 3, 4]);
        assert_eq!(parse("add\n"), Err("add".into()));
        assert_eq!(parse("modify x 3\n"), Err("modify x 3".into()));
        assert_eq!(parse("clear me\n"), Err("clear me".into()));
    }

    #[test]
    fn what_is_added_is_listed_as_ever_and_deleted_again() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "hoard -", "add docs\na src/main.c 600:c+\nlist\n");
        assert_eq!(
            shown.out,
            "<7f000001@example.org, ./docs>, 1000, 10\n<7f000001@example.org, ./src/main.c>, 1000, 600:c+\n"
        );
        assert_eq!(run(&mut fake, "hoard delete docs", "").code, 0);
        assert_eq!(run(&mut fake, "hoard list", "").out.lines().count(), 1);
        assert_eq!(run(&mut fake, "hoard delete docs", "").code, 1);
        assert_eq!(run(&mut fake, "hoard nonsense", "").err, "hoard: parse error: nonsense\n");
    }

    #[test]
    fn what_is_missing_is_verified_fetched_and_then_there() {
        let mut fake = Fake::world();
        run(&mut fake, "hoard add docs", "");
        let missing = "  *** Missing/Invalid ***  /coda/example.org/docs\n";
        assert_eq!(run(&mut fake, "hoard verify", "").out, missing);
        let shown = run(&mut fake, "preflight", "");
        assert!(shown.out.starts_with("        2048 bytes  /coda/example.org/docs"), "{shown:?}");
        assert_ne!(shown.code, 0);
        assert_eq!(run(&mut fake, "preflight --fetch", "").code, 0);
        assert!(run(&mut fake, "preflight", "").out.starts_with("Ready to go: 1 objects"));
    }

    #[test]
    fn what_nobody_pinned_is_looked_at_too_and_nothing_at_all_is_not_ready() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "preflight", "");
        assert!(shown.out.starts_with("Nothing is to be kept here yet"), "{shown:?}");
        let shown = run(&mut fake, "preflight docs", "");
        assert!(
            shown.out.ends_with(
                "1 of 1 objects are not here, 2048 bytes as far as is known, about 3 s to fetch\n"
            )
        );
        assert!(shown.err.contains("`cfs pin docs` fetches it and keeps it here"), "{shown:?}");
        assert_eq!(shown.code, 3);
        run(&mut fake, "pin docs", "");
        assert!(run(&mut fake, "preflight docs", "").out.starts_with("Ready to go: 1 objects"));
        run(&mut fake, "unpin docs", "");
        let shown = run(&mut fake, "preflight docs", "");
        assert!(
            shown.out.starts_with("All of docs is here") && shown.out.contains("`cfs pin docs`"),
            "{shown:?}"
        );
        assert_eq!(shown.code, 0);
    }

    #[test]
    fn a_pin_is_a_wish_for_all_below_and_ends_with_unpin() {
        let mut fake = Fake::world();
        let shown = run(&mut fake, "pin src", "");
        assert_eq!(
            shown.out,
            "src: 1 objects, 2.0 KB, 2.0 KB of it to be fetched; pins may take 1022.0 KB more\n"
        );
        assert!(run(&mut fake, "hoard list", "").out.contains("1000:d+"));
        assert!(fake.cached("/coda/example.org/src"));
        run(&mut fake, "unpin src", "");
        assert_eq!(run(&mut fake, "hoard list", "").out, "");
        assert_eq!(run(&mut fake, "pin --most lots src", "").code, 255);
    }

    #[test]
    fn a_pin_that_cannot_fit_is_refused_with_numbers_and_nothing_is_fetched_for_it() {
        let mut fake = Fake::world();
        fake.leave_room(1000);
        let shown = run(&mut fake, "pin src docs", "");
        assert_eq!((shown.code, shown.out.as_str()), (1, ""), "{shown:?}");
        assert!(shown.err.contains("src: needs 2048 bytes, and pins have 1000 left"), "{shown:?}");
        assert_eq!(run(&mut fake, "hoard list", "").out, "");
    }

    #[test]
    fn what_takes_long_shows_how_far_it_is_on_a_terminal_and_nowhere_else() {
        let wished = || {
            let mut fake = Fake::world();
            run(&mut fake, "hoard -", "add docs\nadd src/main.c\n");
            fake
        };
        let bars = |line: &str, terminal: bool| {
            let shown = run_at(&mut wished(), line, "", terminal);
            assert_eq!(shown.code, 0, "{shown:?}");
            assert!(!shown.out.contains(['\r', '#']), "{shown:?}");
            shown.err
        };
        let empty =
            format!("\r[{}{}] 1 of 2 objects, 2.0 KB of 4.0 KB\x1b[K", "#".repeat(15), ".".repeat(15));
        for line in ["preflight --fetch", "hoard walk", "pin src"] {
            let drawn = bars(line, true);
            assert!(drawn.contains(" objects, ") && drawn.ends_with("\r\x1b[K"), "{line}: {drawn:?}");
            assert_eq!(bars(line, false), "", "{line}");
        }
        assert!(bars("preflight --fetch", true).starts_with(&empty));
        // What is for a script leaves the terminal to people all the same.
        let told = bars("--json hoard walk", true);
        assert!(told.contains("] 1 of 2 objects"), "{told:?}");
    }

    #[test]
    fn sizes_are_read_with_units_of_1024() {
        assert_eq!(
            (size("7"), size("2k"), size("3MB"), size("1 G")),
            (Some(7), Some(2048), Some(3 << 20), Some(1 << 30))
        );
        assert_eq!((size("x"), size("1.5G"), size("99999999999T")), (None, None, None));
    }
}
