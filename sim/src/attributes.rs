//! What a user does besides names and contents: permission bits, extended attributes, access lists, and forgetting
//! copies, as `cfs flushobject` does.

use std::time::Duration;

use coda_proto::{Acl, Rights, acl::ANYUSER};
use venus::{
    error::Error,
    venus::face::{Attr, AttrChange, Face},
};

use crate::{
    actor::{Actor, DIRECTORIES, Result, Strictness, USER},
    model::{OpId, Value, View, attribute},
};

/// The extended attribute that names who set it.
const TAG: &[u8] = b"user.operation";

/// The register of a directory's access list.
fn list_of(dir: &str) -> String {
    attribute(dir, "acl")
}

/// Permission bits that tell who set them, nearly.
fn mode_of(id: OpId) -> u32 {
    0o600 | (id as u32 & 0o177)
}

impl Actor {
    /// Sets permission bits or an extended attribute of what has a name.
    pub(crate) async fn set_attribute(&self, name: &str) -> String {
        let tag = self.chance.permille(500);
        let which = if tag { "tag" } else { "mode" };
        let (what, id) = self.begin(format!("{which} {name}"), |id| {
            vec![(name.to_owned(), Value::Touched), (attribute(name, which), Value::Written(id))]
        });
        let result = async {
            let (dir, last) = self.walk(name).await?;
            let found = self.face.lookup(USER, dir, last.as_bytes()).await?.id;
            let done = match tag {
                true => {
                    self.face
                        .setxattr(self.somebody(), found, TAG, Some(id.to_string().as_bytes()), None)
                        .await
                }
                false => {
                    let change = AttrChange { mode: Some(mode_of(id)), ..AttrChange::default() };
                    self.face.setattr(self.somebody(), found, change, None).await.map(|_| ())
                }
            };
            // The name was there: that what it held is gone does not mean that nothing happened.
            done.map_err(|error| match error {
                Error::NotFound(_) => Error::Gone(found.fid),
                other => other,
            })
        };
        let result = result.await;
        self.end(&what, id, result);
        what
    }

    /// What was just looked at shows the attributes that were last set, where it is certain which they are.
    pub(crate) async fn judge_attributes(&self, name: &str, attr: &Attr, view: View) {
        let (mode, tag) = {
            let model = self.model();
            (model.must_show(name, "mode", view), model.must_show(name, "tag", view))
        };
        if let Some(id) = mode
            && attr.mode != mode_of(id)
        {
            self.accuse(format!("{name}: shows mode {:o}, and {id} set {:o}", attr.mode, mode_of(id)));
        }
        let Some(id) = tag else { return };
        match self.face.getxattr(USER, attr.id, TAG).await {
            Ok(shown) if shown == id.to_string().as_bytes() => {}
            // Somebody may have been at it since it was looked at.
            _ if self.model().must_show(name, "tag", View { ended: self.trace.time(), ..view }) != tag => {}
            Ok(shown) => {
                let shown = String::from_utf8_lossy(&shown).into_owned();
                self.accuse(format!("{name}: shows the tag of {shown}, and {id} set its own since"));
            }
            Err(Error::NoAttribute(_)) => self.accuse(format!("{name}: lost the tag that {id} set")),
            Err(error) => self.tolerate(&format!("tag of {name}"), &error),
        }
    }

    /// Forgets the cached copy of what has a name.
    pub(crate) async fn forget(&self, name: &str) -> String {
        let what = format!("forget {name}");
        if !self.forgetful {
            return self.read(name).await;
        }
        let result = async {
            let (dir, last) = self.walk(name).await?;
            let found = self.face.lookup(USER, dir, last.as_bytes()).await?.id;
            self.face.forget_copy(found)
        };
        let result: Result<bool> = result.await;
        self.said(&what, &result);
        if let Err(error) = result {
            self.tolerate(&what, &error);
        }
        what
    }

    /// Replaces the access list of a directory by one that still allows everything, and names the operation.
    pub(crate) async fn set_acl(&self) -> String {
        let dir = self.listed();
        let (what, id) = self.begin(format!("setacl {dir}"), |id| vec![(list_of(dir), Value::Written(id))]);
        let result = async {
            let (at, _) = self.walk(&format!("{dir}/x")).await?;
            let mut acl = Acl::root(Rights::ALL);
            acl.positive.insert(format!("op-{id}"), Rights::READ);
            self.face.set_acl(at, &acl).await
        };
        let result = result.await;
        self.end(&what, id, result);
        what
    }

    pub(crate) async fn read_acl(&self) -> String {
        let dir = *self.chance.pick(&DIRECTORIES);
        let begun = self.trace.time();
        let what = format!("listacl {dir}");
        match self.acl_of(dir).await {
            // One server is asked, and nothing is cached: in a storm it may be one that missed something.
            Ok(value) => {
                if let Strictness::Calm { slack } = self.strictness {
                    self.judge_acl(dir, value, begun, slack);
                }
            }
            Err(error) => self.tolerate(&what, &error),
        }
        what
    }

    /// Reads an access list when everything is healed and quiet.
    pub async fn read_acl_at_the_end(&self, dir: &str) {
        let begun = self.trace.time();
        match self.acl_of(dir).await {
            Ok(value) => self.judge_acl(dir, value, begun, Duration::ZERO),
            Err(error) => self.accuse(format!("at the end, access list of {dir}: {error}")),
        }
    }

    async fn acl_of(&self, dir: &str) -> Result<Value> {
        let (at, _) = self.walk(&format!("{dir}/x")).await?;
        let acl = self.face.acl(at).await;
        self.said(
            &format!("listacl {dir}"),
            &acl.as_ref().map(|acl| acl.positive.keys().cloned().collect::<Vec<_>>()),
        );
        let acl = acl?;
        if acl.positive.get(ANYUSER) != Some(&Rights::ALL) {
            self.accuse(format!("{dir}: its access list lost what nobody took away: {acl:?}"));
        }
        let named = acl.positive.keys().find_map(|who| who.strip_prefix("op-")?.parse().ok());
        Ok(named.map_or(Value::Absent, Value::Written))
    }

    fn judge_acl(&self, dir: &str, value: Value, begun: Duration, slack: Duration) {
        let list = list_of(dir);
        // Lists that two made without knowing of each other become what both allow.
        if self.may_have_forgotten() || !self.model().has_one_certain_writer(&list) {
            return;
        }
        let view = View { begun, ended: self.trace.time(), slack, only: None, causal: false };
        let seen = self.model().may_see(&list, value, view);
        if let Err(complaint) = seen {
            self.accuse(complaint);
        }
    }
}
