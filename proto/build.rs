//! Compiles the protocol definition without a `protoc` binary.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["types", "vice", "location", "session", "peer", "admin"];
    let paths: Vec<String> = files.iter().map(|name| format!("schema/{name}.proto")).collect();
    for path in &paths {
        println!("cargo::rerun-if-changed={path}");
    }
    if !Path::new("schema/types.proto").exists() {
        return Err("proto/schema/types.proto is missing".into());
    }
    let set = protox::compile(&paths, ["schema"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(set)?;
    Ok(())
}
