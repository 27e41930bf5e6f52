//! Random operations at every member, random partitions, restarts and lost disks; then peace.

use std::time::Duration;

use coda_proto::{Code, Fid, Op, ServerId};
use proptest::prelude::*;

use crate::{
    network::Cluster,
    world::{Client, store_inline},
};

type Step = (u8, u8, u8, u8);

/// What a person at `client` might do next.
async fn act(client: &mut Client, objects: &mut Vec<(Fid, Fid, Vec<u8>)>, (what, x, y, z): Step) {
    let name = vec![b'a' + y % 4];
    let at = |x: u8, objects: &[(Fid, Fid, Vec<u8>)]| objects.get(x as usize % objects.len().max(1)).cloned();
    let dirs: Vec<Fid> = std::iter::once(client.root())
        .chain(objects.iter().map(|(_, fid, _)| *fid).filter(|fid| fid.is_directory()))
        .collect();
    let dir = dirs[x as usize % dirs.len()];
    let to = dirs[z as usize % dirs.len()];
    let op = match (what % 8, at(x, objects)) {
        (0, _) => {
            let fid = client.fresh_file();
            objects.push((dir, fid, name.clone()));
            Op::Create { parent: dir, name, fid, mode: 0o644, owner: 1 }
        }
        (1, _) => {
            let fid = client.fresh_directory();
            objects.push((dir, fid, name.clone()));
            Op::MakeDir { parent: dir, name, fid, mode: 0o755, owner: 1 }
        }
        (2, Some((parent, fid, name))) if fid.is_directory() => Op::RemoveDir { parent, name, fid },
        (2, Some((parent, fid, name))) => Op::Remove { parent, name, fid },
        (3 | 4, Some((from, fid, from_name))) => {
            objects.push((to, fid, name.clone()));
            Op::Rename { from, from_name, to, to_name: name, fid, replaced: None }
        }
        (5 | 6, Some((_, fid, _))) if !fid.is_directory() => store_inline(fid, &[x, y, z]),
        (_, Some((_, fid, _))) => {
            Op::SetAttr { fid, mode: Some(z.into()), owner: None, group: None, mtime: None, atime: None }
        }
        _ => return,
    };
    let mut record = client.record(op).await;
    record.logged = z % 2 == 0;
    // Refusals are answers; only what the members make of each other matters here.
    if let Err(refusal) = client.apply(&[record]).await {
        assert_ne!(refusal.code, Code::Internal, "{refusal}");
    }
}

async fn story(steps: Vec<(u8, u8, Step)>) {
    let mut cluster = Cluster::new(3);
    let mut clients: Vec<Client> =
        (1..=3).map(|id| Client::new(&cluster.server(id), cluster.home, id)).collect();
    let mut objects = Vec::new();
    for (who, how, step) in steps {
        let id = who % 3 + 1;
        match how % 16 {
            0 => cluster.cut(id, id % 3 + 1),
            1 => cluster.cut_off(id),
            2 | 3 => cluster.heal(),
            4 => {
                cluster.stop(ServerId(id));
                cluster.start(ServerId(id));
                let fresh = Client::new(&cluster.server(id), cluster.home, id);
                clients[id as usize - 1] = fresh;
            }
            5 => tokio::time::sleep(Duration::from_secs(u64::from(step.0) / 8)).await,
            _ => act(&mut clients[id as usize - 1], &mut objects, step).await,
        }
    }
    cluster.heal();
    cluster.settle(Duration::from_secs(60)).await;
    cluster.check_stores();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CODA_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn members_converge_after_any_partition(
        steps in proptest::collection::vec(any::<(u8, u8, Step)>(), 10..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(story(steps));
    }
}
