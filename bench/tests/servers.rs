//! What servers do among themselves can be measured, without a mount.

use std::process::Command;

#[test]
fn the_stories_of_servers_run_and_give_their_numbers() {
    let output = Command::new(env!("CARGO_BIN_EXE_coda-bench"))
        .args(["--quick", "--json", "--only", "away,sides,populate,restart"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let stories: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts: Vec<(&str, usize)> = stories
        .iter()
        .map(|story| (story["name"].as_str().unwrap(), story["numbers"].as_array().unwrap().len()))
        .collect();
    assert_eq!(counts, [("away", 1), ("sides", 1), ("populate", 2), ("restart", 1)]);
}
