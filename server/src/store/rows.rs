//! How the nouns of the protocol lie in columns. Pasts, dots and registers are stored as they travel.

use std::collections::BTreeMap;

use coda_proto::{
    Author, Dot, Fid, Malformed, Past, Sibling, VolumeId,
    id::required,
    merge::{Head, Register},
    wire,
};
use prost::Message;

use super::StoreError;

/// A 64-bit number as SQLite holds it.
pub fn signed(number: u64) -> i64 {
    number as i64
}

/// And back.
pub fn unsigned(number: i64) -> u64 {
    number as u64
}

/// A fid of `volume` from its columns.
pub fn fid(volume: VolumeId, vnode: u32, unique: i64) -> Fid {
    Fid { volume, vnode, unique: unsigned(unique) }
}

/// A dot from its columns.
pub fn dot(author: i64, seq: i64) -> Dot {
    Dot::new(Author(unsigned(author)), unsigned(seq))
}

/// A past as a column.
pub fn encode_past(past: &Past) -> Vec<u8> {
    wire::Past::from(past).encode_to_vec()
}

/// And back.
pub fn decode_past(bytes: &[u8]) -> Result<Past, StoreError> {
    Ok(Past::try_from(message::<wire::Past>(bytes, "past")?)?)
}

/// The dots of a binding and their Lamport times as a column: 24 bytes each.
pub fn encode_dots(dots: &BTreeMap<Dot, u64>) -> Vec<u8> {
    let numbers = dots.iter().flat_map(|(dot, lamport)| [dot.author.0, dot.seq, *lamport]);
    numbers.flat_map(u64::to_le_bytes).collect()
}

/// And back.
pub fn decode_dots(bytes: &[u8]) -> Result<BTreeMap<Dot, u64>, StoreError> {
    let (rows, []) = bytes.as_chunks::<24>() else {
        return Err(Malformed::new("dots of a binding", format!("{} bytes", bytes.len())).into());
    };
    let number = |row: &[u8; 24], at: usize| {
        u64::from_le_bytes(row[at * 8..][..8].try_into().expect("eight of twenty-four bytes"))
    };
    Ok(rows.iter().map(|row| (Dot::new(Author(number(row, 0)), number(row, 1)), number(row, 2))).collect())
}

/// Everything of an object but its identity, kind, past and mark.
pub fn encode_body(head: &Head) -> Vec<u8> {
    let registers = head.registers.iter().map(|(name, register)| wire::NamedRegister {
        name: name.clone().into(),
        removed: register.value.is_none(),
        register: Some(register.into()),
    });
    wire::ObjectState {
        siblings: head.siblings.iter().map(Into::into).collect(),
        target: head.target.clone().into(),
        registers: registers.collect(),
        acls: head.acls.values().map(Into::into).collect(),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Reads an object from its columns.
pub fn decode_head(fid: Fid, kind: i32, past: &[u8], body: &[u8], marked: bool) -> Result<Head, StoreError> {
    let body = message::<wire::ObjectState>(body, "object")?;
    let mut head = Head::runt(fid, kind.try_into()?);
    head.past = decode_past(past)?;
    head.siblings = body.siblings.into_iter().map(Sibling::try_from).collect::<Result<_, _>>()?;
    head.target = body.target.into();
    head.marked = marked;
    for named in body.registers {
        let mut register: Register = required(named.register, "register")?;
        if named.removed {
            register.value = None;
        }
        head.registers.insert(named.name.into(), register);
    }
    for list in body.acls {
        let list = Register::try_from(list)?;
        head.acls.insert(list.dot, list);
    }
    Ok(head)
}

/// A message of the protocol from a column.
pub fn message<M: Message + Default>(bytes: &[u8], what: &'static str) -> Result<M, Malformed> {
    M::decode(bytes).map_err(|error| Malformed::new(what, error.to_string()))
}
