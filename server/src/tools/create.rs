//! Volumes and replicas begin and end.

use coda_proto::{
    Acl, Rights,
    wire::{self, admin::Body as Ask},
};
use serde_json::json;

use super::{Exit, Failed, Link, Report, confirm::Consent, link::server, volutil::agreed};
use crate::location::change::volume_of;

/// A new volume.
#[derive(clap::Args)]
pub struct Create {
    /// Its name.
    pub name: String,
    /// Names or ids of its servers (SERVER[/PARTITION]), in the order of their slots [default: all].
    pub servers: Vec<String>,
    /// Rights of System:AnyUser on its root directory.
    #[arg(long, default_value = "rlidwka", value_name = "RIGHTS")]
    pub anyuser: Rights,
}

/// Whether a word is where volumes once lay on a server's disk: no volume but the root's is called so.
pub fn is_partition(word: &str) -> bool {
    word.len() > 1 && word.starts_with('/')
}

/// Refuses ids of groups, which `createvol_rep` took.
fn no_group_id(word: &str) -> anyhow::Result<()> {
    match word.len() == 8 && word.starts_with("7f") && u32::from_str_radix(word, 16).is_ok() {
        true => {
            Err(Failed(Exit::Usage, format!("{word}: the SCM gives the ids, and none twice: leave it away"))
                .into())
        }
        false => Ok(()),
    }
}

/// What `create` is told: the name, and the servers' names. Before, that was PARTITION NAME, on the server of `-h`.
fn told(create: &Create, host: Option<&str>) -> anyhow::Result<(String, Vec<String>)> {
    create.servers.iter().try_for_each(|word| no_group_id(word))?;
    match (&create.servers[..], host) {
        ([name], Some(host)) if is_partition(&create.name) => Ok((name.clone(), vec![host.to_owned()])),
        _ if is_partition(&create.name) => {
            let why = format!("{}: it is NAME SERVER..., or -h SERVER and PARTITION NAME", create.name);
            Err(Failed(Exit::Usage, why).into())
        }
        (servers, _) => Ok((create.name.clone(), servers.to_vec())),
    }
}

/// Makes a volume.
pub async fn create(link: &Link, host: Option<&str>, create: Create) -> anyhow::Result<Report> {
    let (name, servers) = told(&create, host)?;
    let realm = link.realm().await?;
    let servers = servers.iter().map(|name| Ok(server(&realm, name)?.id));
    let servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
    let acl = Some((&Acl::root(create.anyuser)).into());
    let ask = wire::CreateVolume { name, servers, acl, ..Default::default() };
    let answer = link.ask(Ask::CreateVolume(ask)).await?;
    let mut text = String::new();
    for volume in &answer.volumes {
        text += &format!("Volume {:08x} ({}) created \n", volume.id, volume.name);
    }
    let volumes: Vec<_> = answer.volumes.iter().map(super::info::json_of).collect();
    Ok(Report::new(text, json!({ "created": volumes })).and_note(&answer.text))
}

/// A further replica.
#[derive(clap::Args)]
pub struct CreateRep {
    /// Accepted as before: a server keeps everything in one place.
    pub partition: String,
    /// VOLUME.N, where N is the number of entries that the volume has.
    pub name: String,
    /// The volume's group id.
    pub group: String,
    /// Id of the new replica, in hexadecimal [default: the server's next].
    pub replica: Option<String>,
}

/// Keeps an id for a replica on the server that `-h` names.
pub async fn create_rep(link: &Link, host: Option<&str>, create: CreateRep) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let on = match host {
        Some(host) => server(&realm, host)?.id,
        None => realm.scm.0.into(),
    };
    let replica = match &create.replica {
        Some(id) => u32::from_str_radix(id, 16).map_err(|_| anyhow::anyhow!("{id}: not a hexadecimal id"))?,
        None => 0,
    };
    let name = create.name.clone();
    let reserve = wire::ReserveReplica { volume: create.group, server: on, name: create.name, replica };
    let answer = link.ask(Ask::ReserveReplica(reserve)).await?;
    let text = format!("Volume {:08x} ({name}) created \n", answer.replica);
    let json = json!({ "replica": format!("{:08x}", answer.replica), "name": name, "server": on });
    Ok(Report::new(text, json).and_note(&answer.text))
}

/// The end of a volume.
#[derive(clap::Args)]
pub struct Purge {
    /// The volume, by id or name.
    pub volume: String,
    /// Its name once more, as it was asked for before [default: where the volume is given by name, that].
    pub name: Option<String>,
    #[command(flatten)]
    pub consent: Consent,
}

/// Removes a volume.
pub async fn purge(link: &Link, purge: Purge) -> anyhow::Result<Report> {
    let realm = link.realm().await?;
    let id = volume_of(&realm, &purge.volume)?;
    let info = &realm.volumes[&id].info;
    let name = purge.name.unwrap_or_else(|| purge.volume.clone());
    if name != info.name {
        let why = format!("volume {id} is called {}, not {name}", info.name);
        return Err(super::Failed(super::Exit::Refused, why).into());
    }
    let servers: Vec<String> = info.members.iter().map(|member| member.server.to_string()).collect();
    let what = format!("Volume {id} ({name}) on servers {} is removed for ever", servers.join(", "));
    if let Some(report) = agreed(purge.consent, &what)? {
        return Ok(report);
    }
    let ask = wire::PurgeVolume { volume: id.to_string(), name: name.clone() };
    let answer = link.ask(Ask::PurgeVolume(ask)).await?;
    let text = format!("Volume {id} ({name}) successfully purged");
    Ok(Report::new(text, json!({ "purged": id.to_string(), "name": name })).and_note(&answer.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_by_either_form_and_ids_are_nobodys_to_give() {
        let asked = |name: &str, servers: &[&str], host| {
            let servers = servers.iter().map(|word| (*word).to_owned()).collect();
            told(&Create { name: name.into(), servers, anyuser: Rights::ALL }, host)
                .map_err(|why| why.to_string())
        };
        let on = |name: &str, servers: &[&str]| {
            Ok((name.to_owned(), servers.iter().map(|word| (*word).to_owned()).collect()))
        };
        assert_eq!(asked("src", &["one", "two"], None), on("src", &["one", "two"]));
        assert_eq!(asked("/vicepa", &["src"], Some("two")), on("src", &["two"]));
        assert!(asked("/vicepa", &["src"], None).unwrap_err().contains("-h SERVER"));
        assert!(asked("src", &["one", "7f000012"], None).unwrap_err().contains("leave it away"));
    }
}
