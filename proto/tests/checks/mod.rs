//! What must hold for any bytes that arrive. Shared by `tests/bytes.rs` and the targets in `fuzz/`.

use coda_proto::{
    Acl, Dot, Entry, Fid, Past, Record, Refusal, Rights, Status, VolumeId,
    frame::{self, Frame},
    merge::{Head, ObjectState, apply, join_objects, memory::Memory, state_of},
    wire,
};
use prost::Message;

/// A volume in which decoded things are tried.
pub const VOLUME: VolumeId = VolumeId(0x7f00_0001);

/// Every check over the same bytes.
pub fn everything(bytes: &[u8]) {
    frames(bytes);
    messages(bytes);
    text(bytes);
    record(bytes);
    objects(bytes);
}

/// A header never announces more than the limit, and what it frames decodes or is refused.
pub fn frames(bytes: &[u8]) {
    let Some((header, rest)) = bytes.split_first_chunk::<{ frame::HEADER }>() else { return };
    if let Ok(Frame::Message(length)) = frame::parse_header(*header) {
        assert!(length <= frame::FRAME_LIMIT);
        let body = rest[..length.min(rest.len())].to_vec();
        if let Ok(request) = frame::decode::<wire::Request>(body.clone().into(), "request") {
            let again = frame::encode(&request).expect("it came in a frame");
            let decoded = frame::decode::<wire::Request>(again[frame::HEADER..].to_vec().into(), "request");
            assert_eq!(decoded.expect("we encoded it"), request);
        }
        let _ = frame::decode::<wire::Response>(body.into(), "response");
    }
}

/// What decodes into a noun survives the way back.
pub fn messages(bytes: &[u8]) {
    round_trip::<wire::Fid, Fid>(bytes, |fid| (*fid).into());
    round_trip::<wire::Dot, Dot>(bytes, |dot| (*dot).into());
    round_trip::<wire::Past, Past>(bytes, |noun| noun.into());
    round_trip::<wire::Acl, Acl>(bytes, |noun| noun.into());
    round_trip::<wire::Entry, Entry>(bytes, |noun| noun.into());
    round_trip::<wire::Status, Status>(bytes, |noun| noun.into());
    round_trip::<wire::Record, Record>(bytes, |noun| noun.into());
    round_trip::<wire::Refusal, Refusal>(bytes, |refusal| refusal.clone().into());
    round_trip::<wire::ObjectState, ObjectState>(bytes, |noun| noun.into());
    let _ = wire::Hello::decode(bytes);
    let _ = wire::Welcome::decode(bytes);
    let _ = wire::Event::decode(bytes);
    let _ = wire::ClientWord::decode(bytes);
}

fn round_trip<W, D>(bytes: &[u8], back: impl Fn(&D) -> W)
where
    W: Message + Default,
    D: TryFrom<W> + PartialEq + std::fmt::Debug,
{
    let Ok(message) = W::decode(bytes) else { return };
    let Ok(noun) = D::try_from(message) else { return };
    let travelled = W::decode(back(&noun).encode_to_vec().as_slice()).expect("we encoded it");
    match D::try_from(travelled) {
        Ok(arrived) => assert_eq!(arrived, noun),
        Err(_) => panic!("{noun:?} does not survive its own encoding"),
    }
}

/// Text forms: lists, rights, fids.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(acl) = Acl::from_text(text) {
        assert_eq!(Acl::from_text(&acl.to_text()), Ok(acl));
    }
    if let Ok(rights) = text.parse::<Rights>() {
        assert_eq!(rights.to_string().parse(), Ok(rights));
    }
    if let Ok(fid) = text.parse::<Fid>() {
        assert_eq!(fid.to_string().parse(), Ok(fid));
    }
}

/// A record that decodes is applied or refused; applied again it is skipped.
pub fn record(bytes: &[u8]) {
    let Some(record) = wire::Record::decode(bytes).ok().and_then(|record| Record::try_from(record).ok())
    else {
        return;
    };
    let mut replica = replica();
    if apply(&mut replica, &record).is_ok() {
        let before = replica.clone();
        assert_eq!(apply(&mut replica, &record), Ok(coda_proto::merge::Outcome::Repeated));
        assert!(replica == before);
    }
}

/// States that decode are joined, whatever they claim: joined again they change nothing.
pub fn objects(bytes: &[u8]) {
    let Ok(answer) = wire::MetAnswer::decode(bytes) else { return };
    let decoded = answer.objects.into_iter().map(ObjectState::try_from);
    let Ok(states) = decoded.collect::<Result<Vec<_>, _>>() else { return };
    let mut replica = replica();
    let Ok(_) = join_objects(&mut replica, states.clone());
    let before = replica.clone();
    let Ok(_) = join_objects(&mut replica, states.clone());
    assert!(replica == before, "the join is idempotent");
    for state in states {
        let Ok(held) = state_of(&replica, state.head.fid);
        assert!(held.expect("it was joined").head.past.includes(&state.head.past));
    }
}

fn replica() -> Memory {
    Memory::with_root(Head::root(VOLUME, &Acl::root(Rights::ALL), 0o755, 0))
}
