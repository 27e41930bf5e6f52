//! A day in the life: office, train, café, home; and what two replicas and a second client hold in the end.

use std::{fs, path::Path, time::Duration};

use anyhow::Context;
use coda_net::relay::Faults;

use crate::{
    laptop::Laptop,
    realm::{Programs, Realm},
    tree::{same, tree},
    wait::Stretch,
    work::{Desk, incidental},
};

/// How much is done.
pub struct Day {
    /// Small files that are made in the train.
    pub files: usize,
}

/// Lives it. An error names what differed or failed.
pub fn live(day: &Day, programs: &Programs, dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let realm = Realm::make(programs, &runtime, dir, 3)?;
    let laptop = Laptop::new(programs, dir, "laptop")?;
    let outcome = through(day, programs, dir, &realm, &laptop);
    if outcome.is_err() {
        eprintln!("--- the laptop's venus\n{}", laptop.said());
    }
    outcome?;
    drop(laptop);
    realm.end()
}

fn through(day: &Day, programs: &Programs, dir: &Path, realm: &Realm, laptop: &Laptop) -> anyhow::Result<()> {
    let twin = dir.join("twin");
    fs::create_dir(&twin)?;
    laptop.cfs(&["mkmount", &laptop.work().to_string_lossy(), "work"])?;
    let desk = Desk(vec![laptop.work(), twin.clone()]);

    phase("office: three servers", || {
        desk.plant("project", day.files / 2)?;
        desk.commit("office")?;
        desk.rows(20, "office")?;
        desk.edit("notes", 10, "office")
    })?;

    realm.networks(Faults::black_hole());
    phase("train: no network", || {
        // The first change finds out; what follows does not wait.
        desk.edit("notes", 1, "the door closes")?;
        let stretch = Stretch::begin();
        desk.plant("ideas", day.files)?;
        desk.rearrange("project")?;
        desk.commit("train")?;
        desk.rows(20, "train")?;
        desk.edit("notes", 20, "train")?;
        println!("    without the first stall: {:.1?}", stretch.length());
        println!("{}", indented(&laptop.cfs(&["pending"])?, 6));
        Ok(())
    })?;

    let cafe = Faults { rate: Some(8_000), loss: 10, delay: Duration::from_millis(40), ..Faults::default() };
    realm.networks(cafe);
    phase("café: 64 kbit/s, one packet of ten lost", || {
        desk.edit("letter", 3, "café")?;
        desk.rows(3, "café")?;
        desk.commit("café")
    })?;

    realm.networks(Faults::default());
    phase("home: everything goes out", || {
        laptop.cfs(&["flush", "--wait", "--timeout", "120"])?;
        Ok(())
    })?;

    phase("compared", || {
        desk.repositories()?;
        let here = tree(&laptop.work(), &incidental)?;
        let there = tree(&twin, &incidental)?;
        same(("the mount", &here), ("the twin", &there))?;
        let second = Laptop::new(programs, dir, "second")?;
        same(("a second client", &tree(&second.work(), &incidental)?), ("the twin", &there))?;
        let count = realm.servers.len();
        for number in 1..=count {
            let (name, alone) = Laptop::of_one_server(programs, dir, number, count)?;
            same((&name, &tree(&alone.work(), &incidental)?), ("the twin", &there))?;
        }
        Ok(())
    })
}

fn phase(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stretch = Stretch::begin();
    println!("  {name}");
    work().with_context(|| name.to_owned())?;
    println!("    {:.1?}", stretch.length());
    Ok(())
}

fn indented(text: &str, by: usize) -> String {
    let lines: Vec<String> = text.lines().take(6).map(|line| format!("{:by$}{line}", "")).collect();
    lines.join("\n")
}
