//! How people write what they want: `PRIORITY:ATTRIBUTES`, in any order.

use crate::store::Reach;

/// Of a wish that says nothing else.
pub const USUAL: u32 = 10;
/// The highest priority.
pub const HIGHEST: u32 = 1000;

/// What stands behind a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// 1 to 1,000.
    pub priority: u32,
    /// How far.
    pub reach: Reach,
    /// What comes to be within reach later is wanted too. Without it the wish is spelt out when it is made.
    pub future: bool,
}

/// Reads `PRIORITY`, `c`, `d`, `c+` and `d+` between colons, in any order. `d` goes over `c`.
pub fn attributes(text: &str) -> Result<Attributes, String> {
    let mut attributes = Attributes { priority: USUAL, reach: Reach::Itself, future: false };
    for word in text.split(':').filter(|word| !word.is_empty()) {
        let (reach, future) = match word {
            "c" => (Reach::Children, false),
            "c+" => (Reach::Children, true),
            "d" => (Reach::Descendants, false),
            "d+" => (Reach::Descendants, true),
            number => {
                let priority = number.parse().map_err(|_| format!("parse error: {text}"))?;
                if !(1..=HIGHEST).contains(&priority) {
                    return Err(format!("priority out of range (1 - {HIGHEST})"));
                }
                attributes.priority = priority;
                continue;
            }
        };
        attributes.reach = attributes.reach.max(reach);
        attributes.future |= future;
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_in_any_order_and_descendants_go_over_children() {
        let read = |text| attributes(text).map(|a| (a.priority, a.reach, a.future));
        assert_eq!(read(""), Ok((10, Reach::Itself, false)));
        assert_eq!(read("600:c+"), Ok((600, Reach::Children, true)));
        assert_eq!(read("d:50:c"), Ok((50, Reach::Descendants, false)));
        assert_eq!(read("0"), Err("priority out of range (1 - 1000)".into()));
        assert_eq!(read("1001:d"), Err("priority out of range (1 - 1000)".into()));
        assert_eq!(read("x"), Err("parse error: x".into()));
    }
}
