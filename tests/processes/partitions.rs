//! Packets that vanish: a real network with a firewall in it.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    net::Net,
    support,
    world::{World, timed},
};

/// What venus believes of the servers, in the order of their numbers.
fn believed(world: &World) -> Vec<String> {
    let told: serde_json::Value = serde_json::from_str(&world.cfs("--json status")).unwrap();
    let servers =
        told["ok"]["status"]["realms"][0]["servers"].as_array().unwrap_or_else(|| panic!("{told}")).clone();
    servers.iter().map(|server| server["state"].as_str().unwrap().to_owned()).collect()
}

fn write(path: PathBuf) -> Duration {
    let (done, took) = timed(|| fs::write(&path, "x"));
    done.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    took
}

/// One test, because what takes long is common to all: a server that falls silent, and the network that loses much
/// but not all.
#[test]
fn a_server_behind_a_silent_firewall_dies_once_and_lossy_lines_kill_nobody() {
    let Some(net) = Net::new() else { return };
    let Some(world) = World::new(3) else { return };
    write(world.path("before"));
    assert_eq!(believed(&world), ["up", "up", "up"]);

    net.lose(100, world.port(3));
    let (writers, stall) = timed(|| {
        std::thread::scope(|scope| {
            let writer = |n: u64| {
                let path = world.path(&format!("stalled-{n}"));
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(500 * n));
                    write(path)
                })
            };
            (0..10u64).map(writer).collect::<Vec<_>>().into_iter().map(|w| w.join().unwrap()).max()
        })
    });
    assert!((13..18).contains(&stall.as_secs()), "ten writers, {stall:?}, the longest {writers:?}");
    let next = write(world.path("after"));
    assert!(next < Duration::from_secs(1), "{next:?}");
    assert_eq!(believed(&world), ["up", "up", "dead"]);

    net.heal();
    support::within(Duration::from_secs(5), "a server in reach is used again", || {
        believed(&world) == ["up", "up", "up"]
    });

    for server in 1..=3 {
        net.lose(30, world.port(server));
        for n in 0..8 {
            write(world.path(&format!("lossy-{server}-{n}")));
        }
        assert_eq!(believed(&world), ["up", "up", "up"]);
    }
    net.heal();
}

#[test]
fn not_one_packet_leaves_before_the_first_look_up_below_the_mount() {
    let Some(net) = Net::new() else { return };
    let Some(mut world) = World::new(1) else { return };
    write(world.path("after"));
    // What is not sent yet would be sent at once.
    drop(world.cfs("flush --wait"));
    assert!(world.venus().terminate().success());
    world.kill_server(1);
    let before = net.sent();
    world.start_venus();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(net.sent(), before, "not one packet before the first look-up below the mount");
    assert_eq!(fs::read_dir(world.room.mount()).unwrap().count(), 1, "the realm that is cached");
    assert_eq!(fs::read(world.path("after")).unwrap(), b"x", "cached");
    assert!(net.sent() > before, "the servers were looked for");
}
