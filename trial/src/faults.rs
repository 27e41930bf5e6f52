//! Faults every few seconds under continuous writes by two clients; in the end nothing promised is missing,
//! and every replica holds the same.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use coda_net::relay::Faults;

use crate::{
    draw::Draw,
    laptop::Laptop,
    realm::{Programs, Realm},
    tree::{Tree, same, tree},
    wait::{Stretch, until},
    writer::{self, Promises},
};

/// How long, from which seed.
pub struct Plan {
    pub length: Duration,
    pub every: Duration,
    pub seed: u64,
}

/// How long everything may take to be equal once the last fault is over.
const HEALED: Duration = Duration::from_secs(120);

/// Runs it. An error names what was lost or differs.
pub fn run(plan: &Plan, programs: &Programs, dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut realm = Realm::make(programs, &runtime, dir, 3)?;
    let mut laptops = vec![Laptop::new(programs, dir, "one")?, Laptop::new(programs, dir, "two")?];
    laptops[0].cfs(&["mkmount", &laptops[0].work().to_string_lossy(), "work"])?;
    let outcome = through(plan, programs, dir, &mut realm, &mut laptops);
    if outcome.is_err() {
        laptops.iter().for_each(|laptop| eprintln!("--- a venus\n{}", laptop.said()));
    }
    outcome?;
    drop(laptops);
    realm.end()
}

fn through(
    plan: &Plan,
    programs: &Programs,
    dir: &Path,
    realm: &mut Realm,
    laptops: &mut [Laptop],
) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for (number, laptop) in (0..).zip(laptops.iter()) {
        for one in 0..2 {
            let name = format!("writer{number}{one}");
            let own = laptop.work().join(&name);
            until(Duration::from_secs(20), "a directory is made", || {
                fs::create_dir(&own).is_ok() || own.exists()
            })?;
            let (stop, seed) = (stop.clone(), plan.seed * 100 + number * 10 + one);
            let thread = std::thread::Builder::new().name(name.clone());
            writers.push((name, thread.spawn(move || writer::write(own, seed, stop))?));
        }
    }
    let faults = disturb(plan, realm, laptops);
    stop.store(true, Ordering::Relaxed);
    let heal = heal(realm, laptops);
    let mut promised: Vec<(String, Promises)> = Vec::new();
    for (name, thread) in writers {
        promised.push((name, thread.join().ok().context("a writer ended by a panic")?));
    }
    faults?;
    heal?;
    let done: u64 = promised.iter().map(|(_, promises)| promises.done).sum();
    let failed: u64 = promised.iter().map(|(_, promises)| promises.failed).sum();
    println!("  {done} operations succeeded, {failed} failed");
    ensure!(done > 0, "nothing succeeded: the trial shows nothing");

    let stretch = Stretch::begin();
    let mut wrong = vec!["not looked yet".to_owned()];
    let healed = until(HEALED, "everything promised is there", || {
        wrong = laptops.iter().flat_map(|laptop| broken(&promised, &laptop.work())).collect();
        wrong.is_empty()
    });
    if healed.is_err() {
        bail!("{} promises are broken:\n{}", wrong.len(), wrong.join("\n"));
    }
    replicas(programs, dir, laptops)?;
    println!("  everything promised is at every replica {:.1?} after the last fault", stretch.length());
    Ok(())
}

fn broken(promised: &[(String, Promises)], work: &Path) -> Vec<String> {
    promised.iter().flat_map(|(name, promises)| promises.broken(&work.join(name))).collect()
}

/// Every replica, asked alone, shows what a client sees that asks all.
fn replicas(programs: &Programs, dir: &Path, laptops: &[Laptop]) -> anyhow::Result<()> {
    let all = tree(&laptops[0].work(), &|_| false)?;
    let mut alone = Vec::new();
    for number in 1..=3 {
        alone.push(Laptop::of_one_server(programs, dir, number, 3)?);
    }
    for (name, laptop) in &alone {
        let mut last = Ok(());
        let look = || -> anyhow::Result<Tree> { tree(&laptop.work(), &|_| false) };
        let agreed = until(HEALED, "the replica agrees", || {
            last = look().and_then(|there| same((name, &there), ("all together", &all)));
            last.is_ok()
        });
        if agreed.is_err() {
            let work = laptop.work().to_string_lossy().into_owned();
            let status = laptop.cfs(&["status", &work]).unwrap_or_else(|error| error.to_string());
            return last
                .with_context(|| format!("{name}, 120 s after the last fault, whose client says\n{status}"));
        }
    }
    Ok(())
}

/// One fault after another.
fn disturb(plan: &Plan, realm: &mut Realm, laptops: &mut [Laptop]) -> anyhow::Result<()> {
    let mut draw = Draw::new(plan.seed);
    let stretch = Stretch::begin();
    let mut count = 0;
    while stretch.length() < plan.length {
        let server = 1 + draw.below(3);
        let what = match draw.below(10) {
            0 | 1 => {
                if realm.runs(server) {
                    realm.kill(server)?;
                    format!("server {server} is killed")
                } else {
                    realm.start(server)?;
                    format!("server {server} comes back")
                }
            }
            2 => {
                realm.signal(server, libc::SIGSTOP)?;
                format!("server {server} hangs")
            }
            3 => {
                realm.network(server, Faults::black_hole());
                format!("server {server} is in the dark")
            }
            4 => {
                realm.network(server, Faults { deaf: true, ..Faults::default() });
                format!("server {server} is deaf")
            }
            5 => {
                realm.network(server, Faults { mute: true, ..Faults::default() });
                format!("server {server} is mute")
            }
            6 => {
                let delay = Duration::from_millis(50);
                realm.network(server, Faults { loss: 20, delay, ..Faults::default() });
                format!("server {server} is hard to hear")
            }
            7 => {
                let laptop = draw.below(laptops.len());
                laptops[laptop].kill()?;
                laptops[laptop].start()?;
                format!("client {laptop} is killed and started")
            }
            _ => {
                mend(realm)?;
                "everything is mended".to_owned()
            }
        };
        count += 1;
        println!("  {:6.1?}  {what}", stretch.length());
        std::thread::sleep(plan.every);
    }
    println!("  {count} faults");
    Ok(())
}

/// Servers run and are reached.
fn mend(realm: &mut Realm) -> anyhow::Result<()> {
    realm.networks(Faults::default());
    for number in 1..=3 {
        realm.signal(number, libc::SIGCONT)?;
        if !realm.runs(number) {
            realm.start(number)?;
        }
    }
    Ok(())
}

fn heal(realm: &mut Realm, laptops: &mut [Laptop]) -> anyhow::Result<()> {
    mend(realm)?;
    for laptop in laptops {
        until(Duration::from_secs(60), "servers are asked again", || laptop.cfs(&["checkservers"]).is_ok())?;
    }
    Ok(())
}
