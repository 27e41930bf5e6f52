//! `cfs reconnect`: ends what `cfs disconnect` began.

use coda_proto::control::Request;

use super::Command;

pub const COMMAND: Command = Command {
    name: "reconnect",
    short: &[],
    usage: "cfs reconnect [server ...]",
    about: "ends `cfs disconnect`, for all servers or those named",
    run: |talk, args| {
        let servers = args.rest(0, usize::MAX)?;
        let servers = servers.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let answer = talk.ask(Request::Reconnect { servers });
        talk.answer(None, answer, |_| String::new());
        Ok(())
    },
};
