//! Every operation that anybody began, with what it would do to which name, and what its caller was told. From
//! this follows what a reader may see.
//!
//! Each name is a register. An operation writes a [`Value`] to it some time between its beginning and its end;
//! one whose caller died, or was told nothing certain, may do so at any later time. A reader may see the value
//! of an operation unless another one, acknowledged, lies wholly between the two.

use std::{collections::BTreeMap, time::Duration};

/// Names an operation of a world; the contents it writes carry it.
pub type OpId = usize;

/// What a name can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing has this name.
    Absent,
    /// A file that nobody has stored to yet.
    Empty,
    /// A file with the contents that this operation wrote.
    Written(OpId),
    /// Whatever had the other name of a rename.
    Moved,
    /// A directory.
    Directory,
    /// Still what it was: something else of it changed (see [`attribute`]).
    Touched,
}

/// The register of an attribute of what a name holds.
pub fn attribute(name: &str, which: &str) -> String {
    format!("{name}#{which}")
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on, or its caller died, or was told nothing certain.
    Open,
    /// It was acknowledged at this time.
    Done(Duration),
    /// It was refused: it has no effect.
    Refused,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who.
    pub client: usize,
    /// For people.
    pub what: String,
    /// When it began.
    pub begun: Duration,
    /// What became of it.
    pub outcome: Outcome,
    /// What it writes to which names.
    pub effects: BTreeMap<String, Value>,
    /// It was acknowledged while its client had something in its log: others learn of it later, and what they
    /// did meanwhile was done without knowing of it.
    pub logged: bool,
}

impl Operation {
    /// The latest moment at which somebody else may still do something without knowing of it.
    fn known(&self) -> Option<Duration> {
        if self.logged { None } else { self.end() }
    }

    /// The latest moment at which it may have its effect; `None`: any.
    fn end(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Done(at) => Some(at),
            Outcome::Open | Outcome::Refused => None,
        }
    }
}

/// All operations of a world.
#[derive(Default)]
pub struct Model {
    operations: Vec<Operation>,
    /// When a client's user first saw what an operation wrote.
    seen: BTreeMap<(usize, OpId), Duration>,
}

/// How much of the past a reader must know.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// When the reading began.
    pub begun: Duration,
    /// When it ended.
    pub ended: Duration,
    /// Acknowledgements older than this must be known.
    pub slack: Duration,
    /// Only those of this client must be known.
    pub only: Option<usize>,
    /// Nothing is replaced by somebody who may not have known it: the two stand beside each other, or what was removed
    /// comes back.
    pub causal: bool,
}

impl Model {
    /// An operation begins.
    pub fn begin(
        &mut self,
        client: usize,
        what: String,
        now: Duration,
        effects: impl FnOnce(OpId) -> Vec<(String, Value)>,
    ) -> OpId {
        let id = self.operations.len();
        let effects = effects(id).into_iter().collect();
        self.operations.push(Operation {
            client,
            what,
            begun: now,
            outcome: Outcome::Open,
            effects,
            logged: false,
        });
        id
    }

    /// Its caller was told.
    pub fn end(&mut self, id: OpId, outcome: Outcome) {
        self.operations[id].outcome = outcome;
    }

    /// It was acknowledged, and is in its client's log or behind one.
    pub fn logged(&mut self, id: OpId) {
        self.operations[id].logged = true;
    }

    /// A client's user sees what an operation wrote.
    pub fn saw(&mut self, client: usize, id: OpId, now: Duration) {
        self.seen.entry((client, id)).or_insert(now);
    }

    /// What a client's user saw under a name that its owner wrote after `id`: then it may not see `id` again. (But for
    /// names that something was moved to since: it may have come back.)
    pub fn went_back(&self, client: usize, name: &str, id: OpId, view: View) -> Option<OpId> {
        let first = &self.operations[id];
        let end = first.end()?;
        if first.effects.get(name) != Some(&Value::Written(id))
            || self.on(name).any(|(_, op)| op.effects[name] == Value::Moved && op.begun > first.begun)
        {
            return None;
        }
        let later = self.seen.range((client, 0)..(client + 1, 0)).filter(|(_, at)| **at < view.begun);
        let mut later = later.map(|((_, other), _)| *other).filter(|other| {
            let op = &self.operations[*other];
            op.effects.get(name) == Some(&Value::Written(*other))
                && *other != id
                && op.end().is_some()
                && op.begun >= end
        });
        later.next()
    }

    /// Whether whoever did `later` certainly knew of `id`.
    fn knew(&self, later: &Operation, id: Option<OpId>) -> bool {
        let Some(id) = id else { return true };
        let earlier = &self.operations[id];
        let certain = matches!(earlier.effects.values().next(), Some(Value::Written(_)));
        earlier.client == later.client
            || (certain && self.seen.get(&(later.client, id)).is_some_and(|at| *at <= later.begun))
    }

    /// The operation of this number.
    pub fn operation(&self, id: OpId) -> Option<&Operation> {
        self.operations.get(id)
    }

    /// All operations that may have had an effect on a name.
    pub fn on<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (OpId, &'a Operation)> + 'a {
        self.operations
            .iter()
            .enumerate()
            .filter(move |(_, op)| op.outcome != Outcome::Refused && op.effects.contains_key(name))
    }

    /// Whether a reader may see this under a name; if not, why.
    pub fn may_see(&self, name: &str, seen: Value, view: View) -> Result<(), String> {
        if let Value::Written(id) = seen {
            match self.operation(id) {
                None => return Err(format!("{name}: nobody ever wrote {id}")),
                Some(op) if op.outcome == Outcome::Refused => {
                    return Err(format!("{name}: shows what was refused: {}", op.what));
                }
                Some(_) => {}
            }
        }
        // Removed, and changed by somebody whose caller was told nothing certain: then it may be back.
        let open = |op: &Operation| op.outcome == Outcome::Open && op.effects[name] == Value::Touched;
        if seen != Value::Absent && self.on(name).any(|(_, op)| open(op)) {
            return Ok(());
        }
        let mut explained = Vec::new();
        if seen == Value::Absent {
            explained.push((None, Some(Duration::ZERO)));
        }
        for (id, op) in self.on(name).filter(|(_, op)| op.begun <= view.ended) {
            let value = op.effects[name];
            let fits = match (value, seen) {
                (value, seen) if value == seen => true,
                // A file exists before its contents are stored, and a rename brings whatever there was.
                (Value::Written(_), Value::Empty) => true,
                (Value::Moved, Value::Written(_) | Value::Empty | Value::Directory) => true,
                // A store goes to the file, whatever its name is by then.
                _ => false,
            };
            if fits {
                explained.push((Some(id), op.end()));
            }
        }
        if let Value::Written(id) = seen
            && self.was_moved_from(name, id, view)
        {
            explained.push((Some(id), self.operations[id].end()));
        }
        let mut superseded_by = None;
        for (id, end) in &explained {
            match self.superseded(name, *id, *end, view) {
                None => return Ok(()),
                Some(by) => superseded_by = Some(by),
            }
        }
        Err(match superseded_by {
            Some(by) => {
                let op = &self.operations[by];
                format!(
                    "{name}: shows {seen:?}, but {} (client {}) was acknowledged before",
                    op.what, op.client
                )
            }
            None => format!("{name}: shows {seen:?}, which no operation explains"),
        })
    }

    /// Whether what an operation wrote to had this name once, and was renamed in a way that the reader need not know
    /// of: a store goes to the file, whatever its name is by then.
    fn was_moved_from(&self, name: &str, id: OpId, view: View) -> bool {
        let known = |op: &Operation| {
            let known_before = view.begun.checked_sub(view.slack);
            known_before.is_some_and(|known_before| op.end().is_some_and(|end| end < known_before))
                && view.only.is_none_or(|client| op.client == client)
        };
        let mut names = vec![name];
        let mut at = 0;
        while at < names.len() {
            let from = names[at];
            at += 1;
            for (_, rename) in self.on(from) {
                if rename.effects[from] != Value::Absent
                    || rename.begun > view.ended
                    || (at == 1 && known(rename))
                {
                    continue;
                }
                let to = rename.effects.iter().find(|(_, value)| **value == Value::Moved);
                if let Some((to, _)) = to
                    && !names.contains(&to.as_str())
                {
                    names.push(to);
                }
            }
        }
        let wrote = &self.operations[id].effects;
        names[1..].iter().any(|name| wrote.get(*name) == Some(&Value::Written(id)))
    }

    /// The acknowledged operation that lies between the one that ended at `end` and the reading.
    fn superseded(&self, name: &str, id: Option<OpId>, end: Option<Duration>, view: View) -> Option<OpId> {
        let end = end?;
        let known_before = view.begun.checked_sub(view.slack)?;
        self.on(name)
            .filter(|(other, op)| {
                Some(*other) != id
                    && op.effects[name] != Value::Touched
                    && (!view.causal || self.knew(op, id))
                    && op.begun >= end
                    && op.end().is_some_and(|done| done < known_before)
                    && view.only.is_none_or(|client| op.client == client)
            })
            .map(|(other, _)| other)
            .next()
    }

    /// Who set an attribute of what a name holds, as everybody must see it. `None`: nobody can say, because something
    /// of the name is under way, or uncertain, or has moved since.
    pub fn must_show(&self, name: &str, which: &str, view: View) -> Option<OpId> {
        let known_before = view.begun.checked_sub(view.slack)?;
        let register = attribute(name, which);
        let began: Vec<_> = self.on(name).filter(|(_, op)| op.begun <= view.ended).collect();
        if began.iter().any(|(_, op)| op.end().is_none_or(|end| end >= known_before)) {
            return None;
        }
        let (id, set) =
            began.iter().rev().find(|(id, op)| op.effects.get(&register) == Some(&Value::Written(*id)))?;
        let same = |op: &Operation| matches!(op.effects[name], Value::Touched | Value::Written(_));
        let moved = began.iter().any(|(_, op)| op.end() > Some(set.begun) && !same(op));
        let beside = began.iter().any(|(other, op)| {
            other != id && op.begun < set.end().unwrap_or_default() && op.end() > Some(set.begun)
        });
        (!moved && !beside).then_some(*id)
    }

    /// Whether one client alone changed a register, and was always told what became of it.
    pub fn has_one_certain_writer(&self, register: &str) -> bool {
        let clients: std::collections::BTreeSet<usize> = self.on(register).map(|(_, op)| op.client).collect();
        clients.len() <= 1 && self.on(register).all(|(_, op)| op.outcome != Outcome::Open)
    }

    /// Whether two clients ever changed one of these names at the same time, or before one of the changes came
    /// out of its client's log: only then may there be a conflict. (A rename carries a conflict to another of the names.)
    pub fn may_conflict(&self, names: &[&str]) -> bool {
        let changes: Vec<&Operation> = self
            .operations
            .iter()
            .filter(|op| {
                op.outcome != Outcome::Refused && names.iter().any(|name| op.effects.contains_key(*name))
            })
            .collect();
        changes.iter().enumerate().any(|(at, one)| {
            changes[at + 1..].iter().any(|other| {
                let overlap = one.known().is_none_or(|end| other.begun <= end)
                    && other.known().is_none_or(|end| one.begun <= end);
                overlap
                    && one.client != other.client
                    && one.effects.keys().any(|name| other.effects.contains_key(name))
            })
        })
    }

    /// Whether the caller of an operation on one of these names was told nothing certain: what came after may
    /// not have known of it, and stands beside it.
    pub fn is_uncertain(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.on(name).any(|(_, op)| op.outcome == Outcome::Open))
    }

    /// Acknowledged writes that nothing can have replaced: no other operation on their name began after them,
    /// ran beside them, or ended in the open.
    pub fn lasting(&self) -> Vec<(OpId, String)> {
        let mut lasting = Vec::new();
        for (id, op) in self.operations.iter().enumerate() {
            let Some(end) = op.end() else { continue };
            for (name, value) in &op.effects {
                if *value != Value::Written(id) || name.contains('#') {
                    continue;
                }
                let replaced = self.on(name).any(|(other, later)| {
                    let replaces = other != id && later.effects[name] != Value::Touched;
                    replaces && (later.begun >= op.begun || later.end().is_none_or(|done| done > op.begun))
                });
                // Its name may have been taken from it as the source of a rename that began before.
                if !replaced && end > op.begun {
                    lasting.push((id, name.clone()));
                }
            }
        }
        lasting
    }

    /// Number of operations, acknowledged ones, refused ones.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&Outcome) -> bool| self.operations.iter().filter(|op| wanted(&op.outcome)).count();
        let done = count(|outcome| matches!(outcome, Outcome::Done(_)));
        (self.operations.len(), done, count(|outcome| *outcome == Outcome::Refused))
    }
}

/// What an operation stores: its number on every line, so that a mixture of two is noticed.
pub fn contents(id: OpId, lines: usize) -> Vec<u8> {
    format!("operation {id:>8}\n").repeat(lines.max(1)).into_bytes()
}

/// Whose contents these are. An error: they are nobody's, or a mixture.
pub fn author(bytes: &[u8]) -> Result<Value, String> {
    if bytes.is_empty() {
        return Ok(Value::Empty);
    }
    let line = &bytes[..bytes.len().min(19)];
    let id = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix("operation ")?.trim().parse().ok())
        .ok_or_else(|| format!("bytes that nobody wrote: {:?}", String::from_utf8_lossy(line)))?;
    if !bytes.len().is_multiple_of(line.len()) || bytes.chunks(line.len()).any(|chunk| chunk != line) {
        return Err(format!("a mixture that begins with operation {id} ({} bytes)", bytes.len()));
    }
    Ok(Value::Written(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen_at(begun: u64) -> View {
        View { begun: s(begun), ended: s(begun + 1), slack: Duration::ZERO, only: None, causal: false }
    }

    fn write(model: &mut Model, client: usize, from: u64, to: Option<u64>) -> OpId {
        let id = model.begin(client, "write".into(), s(from), |id| vec![("a".into(), Value::Written(id))]);
        if let Some(to) = to {
            model.end(id, Outcome::Done(s(to)));
        }
        id
    }

    #[test]
    fn an_acknowledged_write_hides_what_came_before() {
        let mut model = Model::default();
        let first = write(&mut model, 0, 1, Some(2));
        let second = write(&mut model, 1, 3, Some(4));
        assert!(model.may_see("a", Value::Written(first), seen_at(5)).is_err());
        assert!(model.may_see("a", Value::Absent, seen_at(5)).is_err());
        assert!(model.may_see("a", Value::Written(second), seen_at(5)).is_ok());
        // While the second ran, either could be seen.
        assert!(model.may_see("a", Value::Written(first), seen_at(3)).is_ok());
        // A reader that may be behind, or that must know only its own.
        assert!(model.may_see("a", Value::Written(first), View { slack: s(9), ..seen_at(5) }).is_ok());
        assert!(model.may_see("a", Value::Written(first), View { only: Some(0), ..seen_at(5) }).is_ok());
        assert!(model.may_see("a", Value::Written(first), View { only: Some(1), ..seen_at(5) }).is_err());
    }

    #[test]
    fn who_need_not_know_of_a_rename_sees_later_stores_under_the_old_name() {
        let mut model = Model::default();
        write(&mut model, 0, 1, Some(2));
        let moved = |_| vec![("a".into(), Value::Absent), ("b".into(), Value::Moved)];
        let rename = model.begin(0, "rename".into(), s(3), moved);
        model.end(rename, Outcome::Done(s(4)));
        let later = model.begin(1, "write".into(), s(5), |id| vec![("b".into(), Value::Written(id))]);
        model.end(later, Outcome::Done(s(6)));
        let apart = View { only: Some(1), ..seen_at(9) };
        assert!(model.may_see("a", Value::Written(later), apart).is_ok());
        assert!(model.may_see("a", Value::Written(later), seen_at(9)).is_err());
    }

    #[test]
    fn an_operation_whose_caller_died_may_take_effect_at_any_time() {
        let mut model = Model::default();
        let lost = write(&mut model, 0, 1, None);
        let later = write(&mut model, 1, 3, Some(4));
        assert!(model.may_see("a", Value::Written(lost), seen_at(9)).is_ok());
        assert!(model.may_see("a", Value::Written(later), seen_at(9)).is_ok());
        assert_eq!(model.lasting(), vec![]);
    }

    #[test]
    fn what_a_writer_did_not_know_may_stand_beside_what_it_wrote() {
        let mut model = Model::default();
        let first = write(&mut model, 0, 1, Some(2));
        write(&mut model, 1, 3, Some(4));
        let causal = View { causal: true, ..seen_at(5) };
        assert!(model.may_see("a", Value::Written(first), causal).is_ok());
        model.saw(1, first, s(2));
        assert!(model.may_see("a", Value::Written(first), causal).is_err());
    }

    #[test]
    fn what_was_seen_is_not_followed_by_what_was_before_it() {
        let mut model = Model::default();
        let first = write(&mut model, 0, 1, Some(2));
        let second = write(&mut model, 0, 3, Some(4));
        assert_eq!(model.went_back(1, "a", first, seen_at(9)), None);
        model.saw(1, second, s(5));
        assert_eq!(model.went_back(1, "a", first, seen_at(9)), Some(second));
        assert_eq!(model.went_back(1, "a", second, seen_at(9)), None);
        model.begin(0, "rename".into(), s(6), |_| vec![("a".into(), Value::Moved)]);
        assert_eq!(model.went_back(1, "a", first, seen_at(9)), None);
    }

    #[test]
    fn an_attribute_is_known_while_nothing_else_happens_to_its_name() {
        let mut model = Model::default();
        let tag = |model: &mut Model, from: u64, to: Option<u64>| {
            let id = model.begin(0, "tag".into(), s(from), |id| {
                vec![("a".into(), Value::Touched), (attribute("a", "tag"), Value::Written(id))]
            });
            if let Some(to) = to {
                model.end(id, Outcome::Done(s(to)));
            }
            id
        };
        write(&mut model, 0, 1, Some(2));
        assert_eq!(model.must_show("a", "tag", seen_at(9)), None);
        let first = tag(&mut model, 3, Some(4));
        write(&mut model, 0, 5, Some(6));
        assert_eq!(model.must_show("a", "tag", seen_at(9)), Some(first));
        assert_eq!(model.must_show("a", "tag", seen_at(5)), None);
        let second = tag(&mut model, 7, Some(8));
        assert_eq!(model.must_show("a", "tag", seen_at(9)), Some(second));
        let remove = model.begin(0, "remove".into(), s(9), |_| vec![("a".into(), Value::Absent)]);
        model.end(remove, Outcome::Done(s(10)));
        write(&mut model, 0, 11, Some(12));
        assert_eq!(model.must_show("a", "tag", seen_at(13)), None);
        tag(&mut model, 14, None);
        assert_eq!(model.must_show("a", "tag", seen_at(15)), None);
    }

    #[test]
    fn nobody_sees_what_was_refused_or_never_written() {
        let mut model = Model::default();
        let refused = write(&mut model, 0, 1, None);
        model.end(refused, Outcome::Refused);
        assert!(model.may_see("a", Value::Written(refused), seen_at(9)).is_err());
        assert!(model.may_see("a", Value::Written(77), seen_at(9)).is_err());
    }

    #[test]
    fn a_conflict_needs_two_clients_at_the_same_time() {
        let mut model = Model::default();
        write(&mut model, 0, 1, Some(2));
        write(&mut model, 1, 3, Some(4));
        write(&mut model, 1, 3, Some(5));
        assert!(!model.may_conflict(&["a"]));
        write(&mut model, 0, 5, Some(6));
        assert!(model.may_conflict(&["a", "b"]));
        assert!(!model.may_conflict(&["b"]));
    }

    #[test]
    fn what_is_logged_conflicts_with_what_others_do_later_and_lasts_all_the_same() {
        let mut model = Model::default();
        let logged = write(&mut model, 0, 1, Some(2));
        model.logged(logged);
        assert!(!model.may_conflict(&["a"]));
        assert_eq!(model.lasting(), vec![(logged, "a".to_owned())]);
        write(&mut model, 1, 50, Some(60));
        assert!(model.may_conflict(&["a"]));
        // Whoever wrote it sees it at once.
        assert!(model.may_see("a", Value::Absent, View { only: Some(0), ..seen_at(5) }).is_err());
    }

    #[test]
    fn the_last_write_of_a_name_is_lasting() {
        let mut model = Model::default();
        write(&mut model, 0, 1, Some(2));
        let last = write(&mut model, 0, 3, Some(4));
        assert_eq!(model.lasting(), vec![(last, "a".to_owned())]);
    }

    #[test]
    fn contents_tell_their_operation_and_a_mixture_is_noticed() {
        assert_eq!(author(&contents(12, 3)), Ok(Value::Written(12)));
        assert_eq!(author(b""), Ok(Value::Empty));
        let mixture = [contents(1, 2), contents(2, 2)].concat();
        assert!(author(&mixture).is_err());
        assert!(author(&contents(1, 2)[..30]).is_err());
        assert!(author(b"x").is_err());
    }
}
