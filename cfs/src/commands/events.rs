//! `cfs events`, and `codacon`: what happens inside venus, as it happens, after the last hundred events.

use std::{ops::ControlFlow, thread, time::Duration};

use coda_proto::control::Event;
use serde_json::json;

use super::Command;
use crate::{Talk, exit::Stop};

/// venus keeps as many.
const KEPT: usize = 100;
/// codacon looks this often whether venus is back.
const AGAIN: Duration = Duration::from_secs(5);

pub const COMMAND: Command = Command {
    name: "events",
    short: &[],
    usage: "cfs events [-last] [-n <count>]",
    about: "shows the last hundred (or so many) events, and with no -last each as it happens",
    run: |talk, mut args| {
        let last = args.flag(&["-last", "--last"]);
        let count = args.value(&["-n"])?;
        args.rest(0, 0)?;
        let recent = match count {
            Some(count) => count.to_str().and_then(|count| count.parse().ok()).ok_or(Stop::Usage)?,
            None => KEPT,
        };
        Ok(show(talk, recent, !last)?)
    },
};

pub const CODACON: Command = Command {
    name: "codacon",
    short: &[],
    usage: "cfs codacon",
    about: "shows events like `cfs events`, and waits for venus whenever it is away",
    run: |talk, args| {
        // A host and -tcp are from the days when others could listen.
        args.rest(0, 0)?;
        loop {
            match show(talk, KEPT, true) {
                // Standard output is gone: so is whoever looked.
                Ok(()) => return Ok(()),
                Err(failure) => {
                    talk.say(&format!(
                        "{}: {}; looking again every {} s\n",
                        failure.what,
                        failure.why,
                        AGAIN.as_secs()
                    ));
                }
            }
            talk.hang_up();
            thread::sleep(AGAIN);
        }
    },
};

fn show(talk: &mut Talk<'_>, recent: usize, follow: bool) -> Result<(), coda_proto::control::Failure> {
    let json = talk.json;
    talk.events(recent, follow, |event, out| {
        let written = match json {
            true => writeln!(out, "{}", json!(event)),
            false => out.write_all(text(&event, local(event.time)).as_bytes()),
        };
        match written.and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
}

/// As codacon always wrote it: the text, and when.
fn text(event: &Event, (hour, minute, second): (i32, i32, i32)) -> String {
    format!("{} ( {hour:02}:{minute:02}:{second:02} )\n", event.text)
}

/// Hour, minute and second on this machine's clock.
fn local(time: i64) -> (i32, i32, i32) {
    let seconds: libc::time_t = time.div_euclid(1_000_000_000);
    // SAFETY: an all-zero `tm` is a valid value, and localtime_r only writes to it.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut tm);
        tm
    };
    (tm.tm_hour, tm.tm_min, tm.tm_sec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    #[test]
    fn an_event_is_its_text_and_its_time() {
        let event = Event { text: "unreachable srv1".into(), ..Event::default() };
        assert_eq!(text(&event, (9, 5, 0)), "unreachable srv1 ( 09:05:00 )\n");
    }

    #[test]
    fn the_last_ones_are_shown_in_order_and_then_it_ends() {
        let mut fake = Fake::world();
        fake.kill("srv1.example.org");
        run(&mut fake, "reconnect", "");
        let shown = run(&mut fake, "events -last", "");
        let lines: Vec<_> = shown.out.lines().map(|line| line.split(" (").next().unwrap()).collect();
        assert_eq!(lines, ["unreachable srv1.example.org", "up srv1.example.org"]);
        assert_eq!(run(&mut fake, "events -last -n 1", "").out.lines().count(), 1);
        let json = run(&mut fake, "--json events -last -n 1", "").out;
        let event: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&event["class"], &event["seq"]), (&json!("connection"), &json!(2)));
    }
}
