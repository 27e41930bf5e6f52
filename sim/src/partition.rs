//! Shapes that a network falls into. Most real partitions are not clean: one link is gone, or one direction of it,
//! and two hosts that cannot see each other are both seen by a third.

use crate::{chance::Chance, net::Net};

/// Which directions are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// None.
    Whole,
    /// Two camps, and nothing between them.
    Camps,
    /// Two camps; one hears the other, and is not heard.
    OneWay,
    /// One host and nobody else.
    Lonely,
    /// One client does not reach one server, or one server another.
    OneLink,
    /// Every client reaches one server, each its own, and no server another.
    Narrow,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 6] =
        [Shape::Whole, Shape::Camps, Shape::OneWay, Shape::Lonely, Shape::OneLink, Shape::Narrow];

    /// Cuts that make a network of `servers` and `clients` such, as far as chance leaves it open.
    pub fn cuts(self, servers: &[String], clients: &[String], chance: &Chance) -> Vec<(String, String)> {
        let all: Vec<&String> = servers.iter().chain(clients).collect();
        let both = |a: &str, b: &str| [(a.to_owned(), b.to_owned()), (b.to_owned(), a.to_owned())];
        match self {
            Shape::Whole => Vec::new(),
            Shape::Camps | Shape::OneWay => {
                let camps: Vec<bool> = all.iter().map(|_| chance.permille(500)).collect();
                let mut cuts = Vec::new();
                for (from, here) in all.iter().zip(&camps) {
                    for (to, there) in all.iter().zip(&camps) {
                        if *here != *there && (self == Shape::Camps || *here) {
                            cuts.push(((*from).clone(), (*to).clone()));
                        }
                    }
                }
                cuts
            }
            Shape::Lonely => {
                let lonely = (*chance.pick(&all)).clone();
                all.iter().filter(|host| ***host != lonely).flat_map(|host| both(&lonely, host)).collect()
            }
            Shape::OneLink => {
                let (from, to) = ((*chance.pick(&all)).clone(), chance.pick(servers).clone());
                if from == to { Vec::new() } else { both(&from, &to).into() }
            }
            Shape::Narrow => {
                let mut cuts = Vec::new();
                for (at, server) in servers.iter().enumerate() {
                    cuts.extend(servers[at + 1..].iter().flat_map(|other| both(server, other)));
                }
                for client in clients {
                    let only = chance.pick(servers);
                    let others = servers.iter().filter(|server| *server != only);
                    cuts.extend(others.flat_map(|server| both(client, server)));
                }
                cuts
            }
        }
    }
}

/// The network takes a shape: what was cut before is not any more.
pub fn reshape(net: &Net, shape: Shape, servers: &[String], clients: &[String], chance: &Chance) {
    let cuts = shape.cuts(servers, clients, chance);
    net.set_cuts(&format!("{shape:?}"), cuts);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(kind: &str, count: usize) -> Vec<String> {
        (0..count).map(|at| format!("{kind}{at}")).collect()
    }

    #[test]
    fn in_a_narrow_network_every_client_reaches_one_server_and_no_server_another() {
        let (servers, clients) = (hosts("s", 3), hosts("c", 2));
        let cuts = Shape::Narrow.cuts(&servers, &clients, &Chance::new(3));
        let passes = |from: &String, to: &String| !cuts.contains(&(from.clone(), to.clone()));
        for client in &clients {
            assert_eq!(servers.iter().filter(|server| passes(client, server)).count(), 1);
        }
        assert!(servers.iter().all(|a| servers.iter().all(|b| a == b || !passes(a, b))));
    }

    #[test]
    fn of_two_camps_with_a_one_way_link_only_one_is_deaf() {
        let (servers, clients) = (hosts("s", 3), hosts("c", 2));
        for seed in 0..20 {
            let cuts = Shape::OneWay.cuts(&servers, &clients, &Chance::new(seed));
            assert!(cuts.iter().all(|(from, to)| !cuts.contains(&(to.clone(), from.clone()))));
        }
    }
}
