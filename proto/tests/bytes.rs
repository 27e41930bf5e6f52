//! Decoders over arbitrary bytes, and over real messages with a few bytes wrong.

mod checks;

use coda_proto::{
    Acl, Author, Base, Contents, Dot, Fid, Kind, Op, Past, Record, Rights,
    merge::{Head, ObjectState, apply, memory::Memory, state_of},
    wire,
};
use proptest::prelude::*;
use prost::Message;

fn ops() -> Vec<Op> {
    let (author, volume) = (Author(7), checks::VOLUME);
    let (root, d, e) =
        (Fid::root(volume), Fid::directory(volume, author, 1), Fid::directory(volume, author, 2));
    let (f, l) = (Fid::file(volume, author, 1), Fid::file(volume, author, 2));
    let text = |text: &str| text.as_bytes().to_vec();
    let rename = |from, from_name, to, to_name, fid| Op::Rename {
        from,
        from_name: text(from_name),
        to,
        to_name: text(to_name),
        fid,
        replaced: None,
    };
    vec![
        Op::MakeDir { parent: root, name: text("d"), fid: d, mode: 0o755, owner: 1 },
        Op::MakeDir { parent: root, name: text("e"), fid: e, mode: 0o755, owner: 1 },
        Op::Create { parent: d, name: text("f"), fid: f, mode: 0o644, owner: 1 },
        Op::Symlink { parent: d, name: text("l"), fid: l, target: text("t"), mode: 0o777, owner: 1 },
        Op::Store {
            fid: f,
            length: 3,
            hash: [3; 32],
            mtime: -1,
            contents: Contents::Inline(text("abc").into()),
            mode: Some(0o600),
        },
        Op::Link { parent: d, name: text("g"), fid: f },
        Op::SetAttr {
            fid: f,
            mode: Some(1),
            owner: Some(2),
            group: Some(3),
            mtime: Some(-4),
            atime: Some(5),
        },
        Op::SetXattr { fid: f, name: text("user.a"), value: Some(text("v")) },
        Op::SetAcl { fid: d, acl: Acl::root(Rights::READ) },
        Op::SetQuota { fid: root, min: Some(1), max: Some(2) },
        rename(d, "f", d, "h", f),
        rename(root, "e", d, "e", e),
        Op::Remove { parent: d, name: text("l"), fid: l },
        Op::RemoveDir { parent: d, name: text("e"), fid: e },
    ]
}

/// Every kind of record, applied one after the other, and the states they leave.
fn real_messages() -> Vec<Vec<u8>> {
    let mut replica = Memory::with_root(Head::root(checks::VOLUME, &Acl::root(Rights::ALL), 0o755, 0));
    let mut messages = Vec::new();
    for (index, op) in ops().into_iter().enumerate() {
        let seen = |fid: Fid| Some(Base { fid, past: state_of(&replica, fid).unwrap()?.head.past });
        let record = Record {
            dot: Dot::new(Author(7), index as u64 + 1),
            lamport: index as u64 + 2,
            time: 1,
            changed: 1,
            bases: op.touches().into_iter().filter_map(seen).collect(),
            logged: index % 2 == 0,
            host: String::new(),
            op,
        };
        apply(&mut replica, &record).unwrap();
        messages.push(wire::Record::from(&record).encode_to_vec());
    }
    let fids: Vec<Fid> = replica.heads().map(|head| head.fid).collect();
    let states = fids.into_iter().map(|fid| state_of(&replica, fid).unwrap().unwrap());
    let objects: Vec<wire::ObjectState> = states.map(|state| (&state).into()).collect();
    messages.extend(objects.iter().map(Message::encode_to_vec));
    messages.push(wire::MetAnswer { objects, ..Default::default() }.encode_to_vec());
    messages
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        checks::everything(&bytes);
    }

    #[test]
    fn no_damaged_message_makes_a_decoder_panic(
        which in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4u8), 0..6),
    ) {
        let messages = real_messages();
        let mut bytes = messages[which.index(messages.len())].clone();
        for (at, value, how) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value),
                2 => {
                    bytes.remove(at);
                }
                _ => bytes.truncate(at),
            }
        }
        checks::everything(&bytes);
        let mut framed = (bytes.len() as u32).to_be_bytes().to_vec();
        framed.push(0);
        framed.extend(&bytes);
        checks::frames(&framed);
    }
}

#[test]
fn every_kind_of_record_survives_the_wire() {
    for message in real_messages() {
        checks::everything(&message);
    }
    assert!(real_messages().len() > ops().len());
}

#[test]
fn a_state_that_claims_impossible_places_is_refused() {
    let fid = Fid::root(checks::VOLUME);
    let mut head = Head::runt(fid, Kind::Directory);
    head.past = Past::of(Dot::new(Author(1), 1));
    let mut state = wire::ObjectState::from(&head);
    assert!(ObjectState::try_from(state.clone()).is_ok());
    state.bindings.push(wire::Binding {
        dir: Some(fid.into()),
        name: b"x".to_vec().into(),
        origin: Some(wire::Dot { author: 1, seq: 1 }),
        made: vec![wire::Made { dot: Some(wire::Dot { author: 1, seq: 1 }), lamport: 1 }],
    });
    assert!(ObjectState::try_from(state).is_err(), "a root is in no directory");
}
