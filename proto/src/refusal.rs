//! Why a server said no: a code that programs act on, and a sentence for people.

use std::fmt;

use crate::{Fid, Malformed, id::optional, wire};

pub use wire::Code;

/// A refused call. For an Apply, `index` is the refused record.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What programs act on.
    pub code: Code,
    /// A sentence that names the thing.
    pub detail: String,
    /// Which record of the Apply.
    pub index: u32,
    /// The object that stood in the way.
    pub blame: Option<Fid>,
    /// The new membership, with [`Code::StaleEpoch`].
    pub info: Option<wire::VolumeInfo>,
}

impl Refusal {
    /// A refusal that concerns the whole call.
    pub fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into(), index: 0, blame: None, info: None }
    }

    /// The same, because of this object.
    pub fn about(code: Code, fid: Fid, detail: impl Into<String>) -> Refusal {
        Refusal { blame: Some(fid), ..Refusal::new(code, detail) }
    }

    /// The same, of record `index`.
    pub fn at(mut self, index: usize) -> Refusal {
        self.index = index as u32;
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str_name().trim_start_matches("CODE_").to_lowercase(), self.detail)?;
        if let Some(fid) = self.blame {
            write!(f, " ({fid})")?;
        }
        Ok(())
    }
}
impl std::error::Error for Refusal {}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Refusal {
        Refusal::new(Code::Invalid, malformed.to_string())
    }
}
impl From<Refusal> for wire::Refusal {
    fn from(refusal: Refusal) -> wire::Refusal {
        wire::Refusal {
            code: refusal.code.into(),
            detail: refusal.detail,
            index: refusal.index,
            blame: refusal.blame.map(Into::into),
            info: refusal.info,
        }
    }
}
impl TryFrom<wire::Refusal> for Refusal {
    type Error = Malformed;
    fn try_from(refusal: wire::Refusal) -> Result<Refusal, Malformed> {
        // A code of a later protocol is still a refusal.
        let code = Code::try_from(refusal.code).unwrap_or(Code::Internal);
        if code == Code::Ok {
            return Err(Malformed::new("refusal", "its code is OK"));
        }
        Ok(Refusal {
            code,
            detail: refusal.detail,
            index: refusal.index,
            blame: optional(refusal.blame)?,
            info: refusal.info,
        })
    }
}
