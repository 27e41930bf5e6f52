//! volutil: administers the volumes and servers of a realm, with its admin key. By other names it is
//! createvol_rep, purgevol_rep, getvolinfo, printvrdb, bldvldb.sh and vice-setup: link them to it.

use std::process::ExitCode;

fn main() -> ExitCode {
    coda_server::tools::main()
}
