//! In which order the servers of an SRV answer are tried (RFC 2782).

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower comes first.
    pub priority: u16,
    /// Among equals: the share of those who try it first.
    pub weight: u16,
    /// UDP port.
    pub port: u16,
    /// Host name without the last dot; empty: there is no such service.
    pub target: String,
}

/// By priority; within one, drawn by weight. `random(n)` answers 0 to n, both included.
pub fn order(mut services: Vec<Service>, mut random: impl FnMut(u64) -> u64) -> Vec<Service> {
    // Records without weight stand first in each draw, so that only a zero picks them.
    services.sort_by_key(|service| (service.priority, service.weight != 0));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(first) = services.first() {
        let priority = first.priority;
        let group = services.iter().take_while(|service| service.priority == priority);
        let total: u64 = group.map(|service| u64::from(service.weight)).sum();
        let drawn = random(total);
        let mut sum = 0;
        let picked = services.iter().position(|service| {
            sum += u64::from(service.weight);
            sum >= drawn
        });
        ordered.push(services.remove(picked.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, port: u16) -> Service {
        Service { priority, weight, port, target: "x".into() }
    }

    fn ports(services: &[Service]) -> Vec<u16> {
        services.iter().map(|service| service.port).collect()
    }

    #[test]
    fn a_lower_priority_number_always_comes_first() {
        let services = vec![service(20, 100, 1), service(10, 0, 2), service(30, 7, 3), service(10, 5, 4)];
        for draw in 0..=5 {
            let ordered = ports(&order(services.clone(), |total| draw.min(total)));
            assert_eq!(ordered[2..], [1, 3]);
            assert_eq!(ordered[..2], if draw == 0 { [2, 4] } else { [4, 2] });
        }
    }

    #[test]
    fn weight_is_the_share_of_first_places() {
        let services = vec![service(1, 0, 1), service(1, 1, 2), service(1, 3, 3)];
        let firsts: Vec<_> =
            (0..=4).map(|draw| ports(&order(services.clone(), |n| draw.min(n)))[0]).collect();
        assert_eq!(firsts, [1, 2, 3, 3, 3]);
    }

    #[test]
    fn everybody_is_tried_once() {
        let services: Vec<_> = (0..50).map(|n| service(n % 3, n % 7, n)).collect();
        let mut seed = 1u64;
        let mut all = ports(&order(services, |n| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % (n + 1)
        }));
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }
}
