//! `cfs whereis`: the servers that hold an object's volume, in the order of their slots.

use coda_proto::control::{Place, Places, Reply, Request};

use super::Command;

pub const COMMAND: Command = Command {
    name: "whereis",
    short: &[],
    usage: "cfs whereis [-v] <path> [path ...]",
    about: "shows which servers hold a path's volume (-v: slot, state, volume)",
    run: |talk, mut args| {
        let verbose = args.flag(&["-v"]);
        let paths = args.rest(1, usize::MAX)?;
        let show = if verbose { long } else { short };
        talk.each(
            &paths,
            |path| Request::Whereis { path },
            |reply| match reply {
                Reply::Places(places) => show(places),
                _ => String::new(),
            },
        );
        Ok(())
    },
};

fn short(places: &Places) -> String {
    let names = places.members.iter().map(|place| format!("  {}", place.name));
    format!("{}\n", names.collect::<String>())
}

fn long(places: &Places) -> String {
    let head =
        format!("{} ({}@{}), group of epoch {}\n", places.volume, places.id, places.realm, places.epoch);
    let line = |place: &Place| {
        let up = if place.up { "up" } else { "down" };
        format!(
            "  slot {}  server {:<4} {:<5} {:<8} {}\n",
            place.slot, place.server, up, place.state, place.name
        )
    };
    head + &places.members.iter().map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, run};

    #[test]
    fn names_stand_behind_each_other_in_order_of_slots() {
        let shown = run(&mut Fake::world(), "whereis /coda/example.org/src", "");
        assert_eq!(shown.out, "  srv1.example.org  srv2.example.org\n");
        assert_eq!(shown.code, 0);
    }

    #[test]
    fn with_several_objects_each_line_starts_with_its_own_and_a_failure_stops_nothing() {
        let shown = run(&mut Fake::world(), "whereis /coda/example.org /coda/nowhere src", "");
        assert_eq!(
            shown.out,
            "/coda/example.org    srv1.example.org\n              src    srv1.example.org  srv2.example.org\n"
        );
        assert_eq!(shown.err, "/coda/nowhere: no such object\n");
        assert_eq!(shown.code, 1);
    }

    #[test]
    fn verbose_names_slots_and_who_is_down() {
        let mut fake = Fake::world();
        fake.kill("srv2.example.org");
        let shown = run(&mut fake, "whereis -v src", "");
        assert_eq!(
            shown.out,
            "src (7f000012@example.org), group of epoch 3\n  \
             slot 0  server 1    up    active   srv1.example.org\n  \
             slot 1  server 2    down  active   srv2.example.org\n"
        );
    }

    #[test]
    fn for_scripts_each_object_is_a_line_of_json() {
        let shown = run(&mut Fake::world(), "--json whereis src /coda/nowhere", "");
        let lines: Vec<serde_json::Value> =
            shown.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["object"], "src");
        assert_eq!(lines[0]["ok"]["places"]["members"][1]["name"], "srv2.example.org");
        assert_eq!(lines[1]["failed"]["kind"], "not_found");
        assert_eq!((shown.code, shown.err.as_str()), (1, ""));
    }

    #[test]
    fn a_path_elsewhere_is_refused_before_venus_is_asked() {
        let shown = run(&mut Fake::world(), "whereis /etc/passwd", "");
        assert_eq!(shown.err, "/etc/passwd: not below /coda, where venus is mounted\n");
    }
}
