//! The program `venus`: the cache manager's daemon, and `venus demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    venus::daemon::main()
}
