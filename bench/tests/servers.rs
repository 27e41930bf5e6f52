//! What servers and clients do without a mount can be measured.

use std::process::Command;

#[test]
fn the_stories_run_and_give_their_numbers() {
    let output = Command::new(env!("CARGO_BIN_EXE_coda-bench"))
        .args(["--quick", "--json", "--only", "sides,populate,restart,group-change,log,reconnect"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = report["lines"].as_array().unwrap();
    let names: Vec<&str> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    let expected = "sides populate populate restart restart group-change log log reconnect reconnect";
    assert_eq!(names.join(" "), expected);
    for line in lines {
        assert!(line["mount"].as_f64().unwrap() > 0.0, "{line}");
    }
}
