//! What servers do among themselves: becoming equal again, filling a new replica, starting with many files.

use std::{
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    time::Instant,
};

use anyhow::{bail, ensure};
use bytes::Bytes;
use coda_proto::{
    Author, Dot, Fid, Past, VolumeId,
    service::{Identity, Service},
    wire::{self, request, response::Body},
};
use coda_server::{ServerConfig, shell::CodaServer};

use crate::{
    realm::{Realm, Writer, large},
    story::{Begun, Number, Story, megabytes},
};

/// All of them.
pub const STORIES: &[Story] = &[
    Story {
        name: "away",
        about: "a replica that was away for 10,000 operations, until it is equal again",
        slow: false,
        run: away,
    },
    Story {
        name: "sides",
        about: "one directory with 1,000 entries created at each of two replicas, until they are equal",
        slow: false,
        run: sides,
    },
    Story {
        name: "populate",
        about: "a new replica of 10,000 files of 4 KiB, and of one of 1 GiB, until it serves",
        slow: false,
        run: populate,
    },
    Story {
        name: "restart",
        about: "start of a server with 100,000 files, until its first answer, and its memory then",
        slow: false,
        run: restart,
    },
    Story {
        name: "restart-million",
        about: "the same with 1,000,000 files",
        slow: true,
        run: restart_million,
    },
];

fn away(quick: bool) -> anyhow::Result<Vec<Number>> {
    let operations = if quick { 200 } else { 10_000 };
    let mut realm = Realm::new(true)?;
    realm.stop(1);
    // Each file is two operations.
    Writer::new(&realm, 0, 77)?.fill(&realm, operations / 2, 1000)?;
    let upto = [realm.seen(0)?.0, 0];
    let begun = Instant::now();
    realm.start(1)?;
    realm.equal(upto)?;
    Ok(vec![Number::seconds(
        format!("equal after {operations} operations"),
        begun.elapsed().as_secs_f64(),
        10.0,
    )])
}

fn sides(quick: bool) -> anyhow::Result<Vec<Number>> {
    let entries = if quick { 50 } else { 1000 };
    let mut realm = Realm::new(true)?;
    for (apart, other) in [(0, 1), (1, 0)] {
        realm.stop(other);
        if !realm.runs(apart) {
            realm.start(apart)?;
        }
        let root = Fid::root(realm.home);
        let mut writer = Writer::new(&realm, apart, 90 + apart as u64)?;
        let mut past = Past::of(Dot::new(Author(1), 1));
        for index in 0..entries {
            writer.create(&realm, (root, &mut past), &format!("{apart}-{index}"))?;
        }
        writer.flush(&realm)?;
    }
    let theirs = realm.seen(1)?.0;
    let begun = Instant::now();
    realm.start(0)?;
    realm.equal([realm.seen(0)?.0, theirs])?;
    Ok(vec![Number::seconds(
        format!("equal after {entries} entries at each side"),
        begun.elapsed().as_secs_f64(),
        0.5,
    )])
}

fn populate(quick: bool) -> anyhow::Result<Vec<Number>> {
    let (files, megabytes) = if quick { (200, 8) } else { (10_000, 1024) };
    let mut numbers = Vec::new();
    let realm = Realm::new(false)?;
    Writer::new(&realm, 0, 55)?.fill(&realm, files, 4096)?;
    let seconds = add_replica(&realm)?;
    numbers.push(Number::at_least(
        format!("{files} files of 4 KiB"),
        files as f64 / seconds,
        "files/s",
        2000.0,
    ));
    drop(realm);

    let realm = Realm::new(false)?;
    large(&realm, megabytes)?;
    let seconds = add_replica(&realm)?;
    numbers.push(Number::at_least(
        format!("one file of {megabytes} MiB"),
        megabytes as f64 * 1.048_576 / seconds,
        "MB/s",
        200.0,
    ));
    Ok(numbers)
}

/// Adds the second server's replica; seconds until it has everything.
fn add_replica(realm: &Realm) -> anyhow::Result<f64> {
    let upto = [realm.seen(0)?.0, 0];
    let begun = Instant::now();
    realm.add_replica()?;
    realm.equal(upto)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn restart(quick: bool) -> anyhow::Result<Vec<Number>> {
    started(if quick { 1000 } else { 100_000 })
}

fn restart_million(quick: bool) -> anyhow::Result<Vec<Number>> {
    started(if quick { 2000 } else { 1_000_000 })
}

fn started(files: usize) -> anyhow::Result<Vec<Number>> {
    let mut realm = Realm::new(true)?;
    realm.stop(1);
    Writer::new(&realm, 0, 33)?.fill(&realm, files, 16)?;
    realm.stop(0);
    let taken = Begun::measure(&["--start-server", &realm.dir(0).to_string_lossy()])?;
    Ok(vec![
        Number::seconds(format!("first answer with {files} files"), taken.seconds, 1.0),
        Number::at_most(format!("memory then, with {files} files"), taken.megabytes, "MB", 200.0),
    ])
}

/// Starts the server whose store is in `dir` in this process, and asks it for a root directory.
pub fn start_alone(dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let begun = Instant::now();
    let server = runtime.block_on(async { CodaServer::start(ServerConfig::new(dir), address) })?;
    let volumes: Vec<VolumeId> = server.server().realm().volumes.keys().copied().collect();
    let hello = wire::Hello { protocol: 1, instance: vec![9; 16].into(), ..Default::default() };
    let (welcome, _events) = server.server().hello(Identity::Client, hello);
    for volume in volumes {
        let ask = wire::GetAttr { volume: volume.0, fids: vec![Fid::root(volume).into()] };
        let body = Some(request::Body::GetAttr(ask));
        let request = wire::Request { session: welcome.session, bulk: 0, cop2: Vec::new(), body };
        let (response, _) = runtime.block_on(server.server().call(Identity::Client, request, Bytes::new()));
        match response.body {
            Some(Body::Attributes(found)) => ensure!(found.statuses.len() == 1, "the root is there"),
            other => bail!("{other:?}"),
        }
    }
    Begun { seconds: begun.elapsed().as_secs_f64(), megabytes: megabytes()? }.tell()?;
    runtime.block_on(server.shutdown());
    Ok(())
}
