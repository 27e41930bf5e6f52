//! A log that would remove much of a volume waits until somebody has looked at it.

/// How much a log may remove unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Names.
    pub names: u64,
    /// Per cent of the volume's objects, as far as they are cached; counted from [`FEW`] names on.
    pub percent: u64,
}

/// So many names may always go.
pub const FEW: u64 = 200;

impl Default for Guard {
    fn default() -> Guard {
        Guard { names: 5_000, percent: 50 }
    }
}

impl Guard {
    /// Whether a log that removes so many names of a volume of `objects` has to be approved.
    pub fn objects_to(&self, removes: u64, objects: u64) -> bool {
        let all = objects + removes;
        removes > FEW && (removes > self.names || removes * 100 > all * self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_may_always_go_and_many_only_from_a_large_volume() {
        let guard = Guard::default();
        assert!(!guard.objects_to(FEW, 0));
        assert!(guard.objects_to(FEW + 1, 0));
        assert!(!guard.objects_to(1_000, 100_000));
        assert!(guard.objects_to(1_000, 900));
        assert!(guard.objects_to(5_001, 1_000_000));
    }
}
