//! What a client does that was away, or on a slow line, or one of many.

use std::{path::Path, time::Instant};

use anyhow::ensure;
use coda_net::relay::Faults;

use crate::{
    laptop::{Laptop, until},
    realm::{REALM, Realm, Writer},
    story::{Begun, Number, Story, megabytes},
    workload::{median, quantile},
};

/// All of them.
pub const STORIES: &[Story] = &[
    Story {
        name: "populate-latency",
        about: "making a file of 4 KiB while another replica is filled, against a quiet time",
        slow: false,
        run: populate_latency,
    },
    Story {
        name: "group-change",
        about: "a change of a volume's members, until 100 idle clients know of it",
        slow: false,
        run: group_change,
    },
    Story {
        name: "log",
        about: "start of a client with 100,000 changes to send, and what memory they take",
        slow: false,
        run: log,
    },
    Story {
        name: "reconnect",
        about: "10,000 cached objects that did not change, until all are valid again",
        slow: false,
        run: reconnect,
    },
    Story {
        name: "send-large",
        about: "100 MB stored while apart, until both replicas hold them",
        slow: false,
        run: send_large,
    },
    Story {
        name: "foreground",
        about: "fetching files of 4 KiB at 1 Mbit/s while much is sent, against a quiet line",
        slow: false,
        run: foreground,
    },
];

const KIB4: usize = 4096;

fn populate_latency(quick: bool) -> anyhow::Result<Vec<Number>> {
    let (files, touches) = if quick { (300, 20) } else { (20_000, 400) };
    let realm = Realm::new(false)?;
    Writer::new(&realm, 0, 61)?.fill(&realm, files, KIB4)?;
    let disk = tempfile::tempdir()?;
    let laptop = Laptop::new(&realm, disk.path())?;
    let [quiet, busy] = realm.runtime.block_on(async {
        let home = laptop.home().await?;
        let own = laptop.mkdir(home, "own").await?;
        let mut count = 0;
        let mut touch = async || -> anyhow::Result<f64> {
            let begun = Instant::now();
            count += 1;
            laptop.write(own, &format!("f{count}"), &[7; KIB4]).await?;
            Ok(begun.elapsed().as_secs_f64())
        };
        let (mut quiet, mut busy) = (Vec::new(), Vec::new());
        for _ in 0..touches {
            quiet.push(touch().await?);
        }
        let upto = realm.seen(0)?.0;
        realm.change_members().await?;
        while busy.is_empty() || (busy.len() < 10 * touches && realm.seen(1)?.1 < upto) {
            busy.push(touch().await?);
        }
        Ok::<_, anyhow::Error>([quiet, busy])
    })?;
    let times = |of: f64| quantile(busy.clone(), of) / quantile(quiet.clone(), of);
    Ok(vec![
        Number::at_most("median while a replica is filled", times(0.5), "x quiet", 2.0),
        Number::at_most("99th percentile while a replica is filled", times(0.99), "x quiet", 4.0),
    ])
}

fn group_change(quick: bool) -> anyhow::Result<Vec<Number>> {
    let count = if quick { 5 } else { 100 };
    let realm = Realm::new(false)?;
    let disk = tempfile::tempdir()?;
    let laptops = (0..count)
        .map(|number| Laptop::new(&realm, &disk.path().join(number.to_string())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let before = realm.epoch()?;
    let seconds = realm.runtime.block_on(async {
        for laptop in &laptops {
            laptop.home().await?;
        }
        let begun = Instant::now();
        realm.change_members().await?;
        let knows = |laptop: &Laptop| {
            let group = laptop.venus.peers().known_group(REALM, realm.home);
            group.is_some_and(|group| group.epoch > before)
        };
        until("all know of the change", async || Ok(laptops.iter().all(knows))).await?;
        Ok::<_, anyhow::Error>(begun.elapsed().as_secs_f64())
    })?;
    Ok(vec![Number::seconds(format!("{count} idle clients know of a change of the group"), seconds, 1.0)])
}

fn log(quick: bool) -> anyhow::Result<Vec<Number>> {
    let records: u64 = if quick { 400 } else { 100_000 };
    let realm = Realm::new(false)?;
    let disk = tempfile::tempdir()?;
    let laptop = Laptop::new(&realm, disk.path())?;
    realm.runtime.block_on(async {
        let home = laptop.home().await?;
        let below = laptop.mkdir(home, "below").await?;
        laptop.part();
        for number in 0..records / 2 {
            laptop.write(below, &format!("f{number}"), b"contents of a short file").await?;
        }
        ensure!(laptop.venus.unsent() == records, "{} of {records} are logged", laptop.venus.unsent());
        laptop.venus.stop().await;
        Ok(())
    })?;
    // Nothing of it is left when the process that is measured opens its disk.
    drop(laptop);
    drop(realm);
    let begun = Begun::measure(&["--take-up", &disk.path().to_string_lossy()])?;
    Ok(vec![
        Number::seconds(format!("start with {records} changes to send"), begun.seconds, 1.0),
        Number::at_most(format!("memory for {records} changes to send"), begun.megabytes, "MB", 100.0),
    ])
}

/// Starts a client from its disk in this process, and tells what that took.
pub fn take_up(dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let before = megabytes()?;
    let (laptop, took) = runtime.block_on(Laptop::start(dir))?;
    let taken = megabytes()? - before;
    ensure!(laptop.venus.unsent() > 0, "there is nothing to send");
    Begun { seconds: took.as_secs_f64(), megabytes: taken }.tell()
}

fn reconnect(quick: bool) -> anyhow::Result<Vec<Number>> {
    let files = if quick { 200 } else { 10_000 };
    let realm = Realm::new(true)?;
    Writer::new(&realm, 0, 62)?.fill(&realm, files, 16)?;
    realm.equal([realm.seen(0)?.0, 0])?;
    let disk = tempfile::tempdir()?;
    let laptop = Laptop::new(&realm, disk.path())?;
    let (calls, seconds) = realm.runtime.block_on(async {
        let mut known = Vec::new();
        for dir in laptop.list(laptop.home().await?).await? {
            known.extend(laptop.list(dir).await?);
        }
        ensure!(known.len() == files, "{} of {files} files are there", known.len());
        for id in &known {
            ensure!(laptop.lasts(*id).await?, "nobody promises anything");
        }
        laptop.part();
        let (before, begun) = (laptop.asked(), Instant::now());
        laptop.meet();
        // What was promised before it parted is void, and the first look at anything asks.
        until("the first is valid", async || Ok(laptop.lasts(known[0]).await? && laptop.asked() > before))
            .await?;
        for id in &known {
            until("each is valid", async || laptop.lasts(*id).await).await?;
        }
        Ok((laptop.asked() - before, begun.elapsed().as_secs_f64()))
    })?;
    Ok(vec![
        Number::at_most(format!("questions about {files} cached objects"), calls as f64, "calls", 4.0),
        Number::seconds(format!("until {files} cached objects are valid"), seconds, 1.0),
    ])
}

fn send_large(quick: bool) -> anyhow::Result<Vec<Number>> {
    let megabytes = if quick { 8 } else { 100 };
    let realm = Realm::new(true)?;
    let disk = tempfile::tempdir()?;
    let laptop = Laptop::new(&realm, disk.path())?;
    let used = |index: usize| -> anyhow::Result<u64> {
        Ok(realm.server(index)?.volume(realm.home)?.read(|view| Ok(view.volume_row()?.used))?)
    };
    let seconds = realm.runtime.block_on(async {
        let home = laptop.home().await?;
        let below = laptop.mkdir(home, "below").await?;
        laptop.part();
        for number in 0..megabytes {
            let mut bytes = vec![number as u8; 1_000_000];
            bytes.chunks_mut(4096).enumerate().for_each(|(at, page)| page[0] = at as u8);
            laptop.write(below, &format!("f{number}"), &bytes).await?;
        }
        let begun = Instant::now();
        laptop.meet();
        until("both hold it", async || Ok(laptop.venus.unsent() == 0 && used(0)? == used(1)?)).await?;
        Ok::<_, anyhow::Error>(begun.elapsed().as_secs_f64())
    })?;
    let stored = used(0)? * 1024;
    ensure!(stored >= megabytes as u64 * 1_000_000, "only {stored} bytes are there");
    Ok(vec![Number::seconds(format!("until both replicas hold {megabytes} MB"), seconds, 2.0)])
}

/// One megabit a second, in packets of an Ethernet.
fn slow() -> Faults {
    Faults { rate: Some(125_000), largest: Some(1472), ..Faults::default() }
}
/// So many packets later the line is busy with what is sent.
const MUCH: u64 = 80;

fn foreground(quick: bool) -> anyhow::Result<Vec<Number>> {
    let (fetches, files, size) = if quick { (3, 10, 40_000) } else { (40, 100, 100_000) };
    let realm = Realm::over_lines(false)?;
    Writer::new(&realm, 0, 63)?.scatter(&realm, 2 * fetches)?;
    let disk = tempfile::tempdir()?;
    let laptop = Laptop::new(&realm, disk.path())?;
    let [quiet, busy] = realm.runtime.block_on(async {
        let home = laptop.home().await?;
        let mut there = Vec::new();
        for number in 0..2 * fetches {
            let dir = laptop.find(home, &format!("d{number}")).await?;
            there.push(laptop.find(dir, "file").await?);
        }
        let (first, second) = there.split_at(fetches);
        realm.lines.iter().for_each(|line| line.set(slow()));
        let fetch = async |id| -> anyhow::Result<f64> {
            let begun = Instant::now();
            ensure!(laptop.read(id).await? == KIB4, "a file is not whole");
            Ok(begun.elapsed().as_secs_f64())
        };
        let (mut quiet, mut busy) = (Vec::new(), Vec::new());
        for id in first {
            quiet.push(fetch(*id).await?);
        }
        laptop.part();
        for number in 0..files {
            laptop.write(home, &format!("f{number}"), &vec![number as u8; size]).await?;
        }
        let carried = || realm.lines.iter().map(|line| line.counts().0).sum::<u64>();
        let before = carried();
        laptop.meet();
        until("much is on its way", async || Ok(carried() > before + MUCH)).await?;
        for id in second {
            // What is fetched after that has the line to itself.
            if laptop.venus.unsent() > 0 {
                busy.push(fetch(*id).await?);
            }
        }
        ensure!(!busy.is_empty(), "everything was sent before the first fetch");
        Ok::<_, anyhow::Error>([quiet, busy])
    })?;
    let times = median(busy) / median(quiet);
    let what = format!("median fetch while {} kB are sent", files * size / 1000);
    Ok(vec![Number::at_most(what, times, "x quiet", 2.0)])
}
