//! The SCM that dies, is replaced and comes back, among real servers in one process.

#[allow(dead_code)]
#[path = "resolution/network.rs"]
mod network;
mod world;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coda_proto::{
    Acl, Code, Refusal, Rights, ServerId,
    service::{Identity, Service},
    wire::{self, admin::Body as Ask, request, response::Body},
};
use coda_server::Server;
use network::Cluster;
use world::Client;

async fn admin(server: &Arc<Server>, ask: Ask) -> Result<wire::AdminAnswer, Refusal> {
    let body = Some(request::Body::Admin(wire::Admin { body: Some(ask) }));
    let request = wire::Request { body, ..Default::default() };
    match server.call(Identity::Admin, request, Bytes::new()).await.0.body {
        Some(Body::Admin(answer)) => Ok(answer),
        Some(Body::Refusal(refusal)) => Err(refusal.try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

fn create(name: &str, servers: &[u32]) -> Ask {
    Ask::CreateVolume(wire::CreateVolume {
        name: name.into(),
        servers: servers.to_vec(),
        acl: Some((&Acl::root(Rights::ALL)).into()),
        ..Default::default()
    })
}

fn promote(term: u64, server: u32, without: &[u32]) -> Ask {
    let mandate = wire::Mandate { realm: "test.example".into(), term, server, proof: None };
    Ask::Promote(wire::Promote { mandate: Some(mandate), without: without.to_vec() })
}

/// Where a server is reached by whom.
fn endpoints() -> Vec<wire::Endpoint> {
    let endpoint = |host: &str, peer_only| wire::Endpoint { host: host.into(), port: 2432, peer_only };
    vec![endpoint("files.example.org", false), endpoint("192.168.7.2", true)]
}

#[tokio::test(start_paused = true)]
async fn a_server_announces_a_private_endpoint_and_no_client_ever_learns_it() {
    let cluster = Cluster::new(3);
    cluster.server(2).announce(endpoints()).await;
    cluster.server(1).announce(endpoints()).await;
    agree(&cluster, &[1, 2, 3]).await;
    assert_eq!(cluster.server(3).realm().servers[&ServerId(2)].endpoints, endpoints(), "peers know both");
    for id in [1, 2, 3] {
        let client = Client::new(&cluster.server(id), cluster.home, 20 + id);
        let Body::Realm(realm) = client.call(request::Body::GetRealm(wire::GetRealm {})).await.unwrap()
        else {
            panic!("no realm")
        };
        for server in realm.servers.iter().filter(|server| server.id < 3) {
            let hosts: Vec<&str> = server.endpoints.iter().map(|at| at.host.as_str()).collect();
            assert_eq!(hosts, ["files.example.org"]);
        }
    }
    // One that clients could not reach at all is not taken.
    let only = wire::Announce { endpoints: endpoints().split_off(1) };
    let body = Some(request::Body::Admin(wire::Admin { body: Some(Ask::Announce(only)) }));
    let request = wire::Request { body, ..Default::default() };
    let (response, _) = cluster.server(1).call(Identity::Server(ServerId(2)), request, Bytes::new()).await;
    assert!(matches!(response.body, Some(Body::Refusal(refusal)) if refusal.detail.contains("clients need")));
}

#[tokio::test(start_paused = true)]
async fn a_list_is_compared_without_and_with_effect() {
    let cluster = Cluster::new(3);
    let one = cluster.server(1);
    let list = |vrlist: String, dry_run| {
        Ask::LoadLocation(wire::LoadLocation { servers_file: String::new(), vrlist_file: vrlist, dry_run })
    };
    admin(&one, create("a", &[1])).await.unwrap();
    let text = coda_server::location::vrlist::text(one.realm().volumes.values().map(|volume| &volume.info));
    let edited = text.replace("a 7f000003 1 01000003 00000000", "a 7f000003 2 01000003 02000009");
    assert_ne!(text, edited);
    let said = admin(&one, list(edited.clone(), true)).await.unwrap().text;
    assert_eq!(said, "+ replica 02000009 of a on server2, joining\n");
    assert_eq!(one.realm().volume_named("a").unwrap().info.members.len(), 1);
    admin(&one, list(edited.clone(), false)).await.unwrap();
    assert_eq!(one.realm().volume_named("a").unwrap().info.members.len(), 2);
    assert_eq!(admin(&one, list(edited, true)).await.unwrap().text, "", "now it is as the list says");
}

/// Waits until all of them have one log, and one of them is the SCM.
async fn agree(cluster: &Cluster, ids: &[u8]) {
    let start = tokio::time::Instant::now();
    loop {
        let logs: Vec<_> = ids.iter().map(|id| cluster.server(*id).chronicle().entries().to_vec()).collect();
        if logs.iter().all(|log| *log == logs[0]) {
            let realms: Vec<_> = ids.iter().map(|id| cluster.server(*id).realm()).collect();
            assert!(realms.iter().all(|realm| realm == &realms[0]), "one log, one realm");
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(200), "the logs stay apart");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_every_server_and_a_server_that_missed_it_learns_by_itself() {
    let cluster = Cluster::new(3);
    let answer = admin(&cluster.server(1), create("a", &[1, 2])).await.unwrap();
    assert_eq!(answer.text, "");
    agree(&cluster, &[1, 2, 3]).await;
    assert!(cluster.server(3).realm().volume_named("a").is_some(), "every server answers for it");
    assert!(cluster.server(2).volumes().len() > cluster.server(3).volumes().len(), "and two serve it");
    cluster.cut_off(3);
    let answer = admin(&cluster.server(1), create("b", &[2])).await.unwrap();
    assert_eq!(answer.text, "not reached yet: server 3 (server3)");
    cluster.heal();
    agree(&cluster, &[1, 2, 3]).await;
    assert!(cluster.server(3).realm().volume_named("b").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_scm_that_reaches_fewer_than_half_changes_nothing() {
    let cluster = Cluster::new(3);
    cluster.cut_off(1);
    let refused = admin(&cluster.server(1), create("a", &[1])).await.unwrap_err();
    assert_eq!(refused.code, Code::Busy);
    assert!(refused.detail.contains("nothing is changed"), "{refused}");
    assert!(refused.detail.contains("server 2 (server2), server 3 (server3) do not answer"), "{refused}");
    assert!(cluster.server(1).realm().volume_named("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn without_the_scm_files_and_locations_go_on_and_administration_says_what_it_needs() {
    let mut cluster = Cluster::new(3);
    cluster.stop(ServerId(1));
    let mut client = Client::new(&cluster.server(2), cluster.home, 9);
    let root = client.root();
    client.mkdir(root, "made without the SCM").await.unwrap();
    for id in [2, 3] {
        let fresh = Client::new(&cluster.server(id), cluster.home, 10 + id);
        let get = wire::GetVolume { name: "home".into(), id: 0 };
        assert!(matches!(fresh.call(request::Body::GetVolume(get)).await, Ok(Body::Volume(_))));
        let realm = fresh.call(request::Body::GetRealm(wire::GetRealm {})).await;
        assert!(matches!(realm, Ok(Body::Realm(realm)) if realm.servers.len() == 3));
    }
    let refused = admin(&cluster.server(2), create("a", &[2])).await.unwrap_err();
    assert!(refused.detail.contains("changed at its SCM, server 1 (server1)"), "{refused}");
    assert!(
        refused.detail.contains("`volutil promote-scm` makes this server, server2, the SCM"),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_server_is_promoted_and_the_old_scm_steps_down_when_it_returns() {
    let mut cluster = Cluster::new(3);
    admin(&cluster.server(1), create("before", &[1, 2, 3])).await.unwrap();
    cluster.stop(ServerId(1));
    let answer = admin(&cluster.server(2), promote(2, 2, &[])).await.unwrap();
    assert!(answer.text.starts_with("server 2 is the SCM, in term 2; not reached yet: server 1"));
    let made = admin(&cluster.server(2), create("after", &[2, 3])).await.unwrap();
    assert_eq!(cluster.server(3).realm().scm, ServerId(2));
    let epoch = made.volumes[0].epoch;
    assert!(epoch > 1 << 32, "an epoch of a later term is higher than any of an earlier: {epoch}");
    cluster.start(ServerId(1));
    agree(&cluster, &[1, 2, 3]).await;
    let refused = admin(&cluster.server(1), create("x", &[1])).await.unwrap_err();
    assert!(refused.detail.contains("changed at its SCM, server 2"), "{refused}");
    // Back again, by a further term.
    admin(&cluster.server(1), promote(3, 1, &[])).await.unwrap();
    agree(&cluster, &[1, 2, 3]).await;
    admin(&cluster.server(1), create("x", &[1])).await.unwrap();
    let refused = admin(&cluster.server(2), create("y", &[1])).await.unwrap_err();
    assert!(refused.detail.contains("server 1 (server1)"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_promotion_needs_enough_servers_and_says_which() {
    let cluster = Cluster::new(3);
    cluster.cut_off(2);
    let refused = admin(&cluster.server(2), promote(2, 2, &[])).await.unwrap_err();
    assert!(refused.detail.contains("server 3 (server3) cannot be asked"), "{refused}");
    // Nothing has come of it: the SCM goes on.
    cluster.heal();
    admin(&cluster.server(1), create("a", &[1])).await.unwrap();
    for (ask, why) in [
        (promote(1, 2, &[]), "no mandate"),
        (promote(2, 3, &[]), "this is server 2, not 3"),
        (
            Ask::Promote(wire::Promote {
                mandate: Some(wire::Mandate { realm: "other".into(), term: 2, server: 2, proof: None }),
                without: vec![],
            }),
            "the mandate is for other",
        ),
    ] {
        let refused = admin(&cluster.server(2), ask).await.unwrap_err();
        assert!(refused.detail.contains(why), "{refused}");
    }
    // Only an administrator may ask for it.
    let body = Some(request::Body::Admin(wire::Admin { body: Some(promote(2, 2, &[])) }));
    for who in [Identity::Client, Identity::Server(ServerId(3))] {
        let request = wire::Request { body: body.clone(), ..Default::default() };
        let (response, _) = cluster.server(2).call(who, request, Bytes::new()).await;
        assert!(matches!(response.body, Some(Body::Refusal(refusal)) if refusal.code == Code::Access as i32));
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_scm_did_alone_is_given_up_aloud_and_what_it_put_on_disk_is_set_aside() {
    let cluster = Cluster::new(2);
    cluster.cut(1, 2);
    // Of two servers each goes on alone: the operator has said that the other is lost, and was wrong.
    let answer = admin(&cluster.server(1), create("mine", &[1])).await.unwrap();
    assert!(answer.text.contains("not reached yet: server 2"), "{}", answer.text);
    let mine = coda_proto::VolumeId(answer.volumes[0].id);
    let mut client = Client::new(&cluster.server(1), mine, 9);
    let root = client.root();
    client.mkdir(root, "work").await.unwrap();
    admin(&cluster.server(2), promote(2, 2, &[])).await.unwrap();
    let theirs = admin(&cluster.server(2), create("theirs", &[1, 2])).await.unwrap();
    cluster.heal();
    agree(&cluster, &[1, 2]).await;
    let one = cluster.server(1);
    assert_eq!(one.realm().scm, ServerId(2));
    assert!(one.realm().volume_named("mine").is_none());
    let given_up = one.store().given_up().unwrap();
    assert_eq!(given_up.len(), 1);
    assert!(given_up[0].what.contains("volume mine"), "{}", given_up[0].what);
    // Both were given the same id; what lay there under the first name is not served under the second.
    let id = coda_proto::VolumeId(theirs.volumes[0].id);
    assert_eq!(id, mine);
    assert_eq!(one.volume(id).unwrap().read(|view| Ok(view.objects()?)).unwrap(), 1, "a fresh replica");
    assert_eq!(std::fs::read_dir(cluster.dir(ServerId(1)).join("aside")).unwrap().count(), 1);
    assert!(cluster.server(2).store().given_up().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_of_a_new_scm_and_of_its_changes() {
    let mut cluster = Cluster::new(3);
    let mut client = Client::new(&cluster.server(3), cluster.home, 9);
    cluster.stop(ServerId(1));
    admin(&cluster.server(2), promote(2, 2, &[])).await.unwrap();
    loop {
        let event = client.events().next().await.unwrap();
        if let Some(wire::event::Body::Config(config)) = event.body {
            assert!(config > 1 << 32, "a number of the second term: {config}");
            break;
        }
    }
}
