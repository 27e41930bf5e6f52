//! Questions to DNS, each answered in bounded time.
//!
//! Name servers come from `/etc/resolv.conf`, which is read again when it has changed: a laptop gets
//! others with every network. Search domains are never used: a realm's name is complete.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use coda_net::canary::{Knock, knock};
use tokio::time::{sleep, timeout};
use trust_dns_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
    system_conf,
};

use super::srv::Service;

/// A question is asked again after this.
const TRY: Duration = Duration::from_millis(2500);
/// The longest that a question takes, whatever the name servers do.
const LIMIT: Duration = Duration::from_secs(5);
/// Without an answer for so long, we look whether anybody listens.
const WORRY: Duration = Duration::from_millis(200);
/// "No such name" is believed for so long: a realm that was just made appears within seconds.
const NEGATIVE: Duration = Duration::from_secs(5);
/// And an address for so long, even if its owner promises more.
const POSITIVE: Duration = Duration::from_secs(300);

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServers {
    /// Those of a file in the form of `/etc/resolv.conf`.
    File(PathBuf),
    /// These.
    Given(Vec<SocketAddr>),
}

/// What DNS says about a realm's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// These servers.
    At(Vec<Service>),
    /// A target of `.`: decidedly none.
    Absent,
    /// Nothing.
    Unknown,
}

/// Asks DNS.
pub struct Dns {
    servers: NameServers,
    current: Mutex<Option<(Stamp, Client)>>,
}

#[derive(Clone)]
struct Client {
    resolver: TokioResolver,
    /// Where it asks.
    at: Vec<SocketAddr>,
}

/// What changes when the file does: device, inode, size, modification time in ns.
type Stamp = Option<(u64, u64, u64, i64)>;

impl Dns {
    /// Asks these.
    pub fn new(servers: NameServers) -> Dns {
        Dns { servers, current: Mutex::default() }
    }

    /// The SRV records of `_codasrv._udp.REALM`.
    pub async fn services(&self, realm: &str) -> Result<Services, String> {
        let records = self.ask(&format!("_codasrv._udp.{realm}"), RecordType::SRV).await?;
        let services: Vec<_> = records.into_iter().filter_map(service).collect();
        if services.is_empty() {
            return Ok(Services::Unknown);
        }
        let at: Vec<_> = services.into_iter().filter(|service| !service.target.is_empty()).collect();
        Ok(if at.is_empty() { Services::Absent } else { Services::At(at) })
    }

    /// The addresses of a host, of both families.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let (six, four) = tokio::join!(self.ask(host, RecordType::AAAA), self.ask(host, RecordType::A));
        // One family may be broken on the way; both broken is a failure.
        let records = match (six, four) {
            (Err(why), Err(_)) => return Err(why),
            (six, four) => six.unwrap_or_default().into_iter().chain(four.unwrap_or_default()),
        };
        let address = |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        Ok(records.filter_map(address).collect())
    }

    /// The records of a name; none, if there is no such name. An error: nobody answered.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, String> {
        let mut name = Name::from_ascii(name).map_err(|error| format!("{name}: {error}"))?;
        name.set_fqdn(true);
        let failed = |why: String| format!("DNS does not answer about {name}: {why}");
        let client = self.client().map_err(failed)?;
        let answer = tokio::select! {
            biased;
            answer = timeout(LIMIT, client.resolver.lookup(name.clone(), kind)) => answer,
            () = all_closed(&client.at) => return Err(failed("no name server runs".into())),
        };
        match answer {
            Ok(Ok(found)) => Ok(found.answers().iter().map(|record| record.data.clone()).collect()),
            Ok(Err(error)) if error.is_no_records_found() => Ok(Vec::new()),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("silent for {} s", LIMIT.as_secs()))),
        }
    }

    fn client(&self) -> Result<Client, String> {
        let stamp = match &self.servers {
            NameServers::File(file) => std::fs::metadata(file).ok().map(|file| {
                (file.dev(), file.ino(), file.size(), file.mtime() * 1_000_000_000 + file.mtime_nsec())
            }),
            NameServers::Given(_) => None,
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, client)) = &*current
            && *of == stamp
        {
            return Ok(client.clone());
        }
        let client = self.build().map_err(|error| error.to_string())?;
        *current = Some((stamp, client.clone()));
        Ok(client)
    }

    fn build(&self) -> Result<Client, NetError> {
        let servers = match &self.servers {
            NameServers::File(file) => {
                let text = std::fs::read(file).map_err(|error| {
                    NetError::from(io::Error::new(error.kind(), format!("{}: {error}", file.display())))
                })?;
                let (config, _) = system_conf::parse_resolv_conf(text)?;
                config.name_servers().to_vec()
            }
            NameServers::Given(addresses) => addresses.iter().copied().map(name_server).collect(),
        };
        if servers.is_empty() {
            return Err(NetError::from("no name server is configured"));
        }
        let port =
            |server: &NameServerConfig| server.connections.first().map_or(53, |connection| connection.port);
        let at = servers.iter().map(|server| SocketAddr::new(server.ip, port(server))).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options();
        Ok(Client { resolver: builder.build()?, at })
    }
}

/// Ends when the port of every name server is closed, which the resolver itself is never told.
async fn all_closed(servers: &[SocketAddr]) {
    loop {
        // An answer is usually here before this.
        sleep(WORRY).await;
        let mut closed = 0;
        for server in servers {
            closed += usize::from(knock(*server).await == Knock::Closed);
        }
        if closed == servers.len() {
            return;
        }
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = TRY;
    options.attempts = 1;
    options.negative_max_ttl = Some(NEGATIVE);
    options.positive_max_ttl = Some(POSITIVE);
    // `hosts` reads that file, and says so where it does.
    options.use_hosts_file = ResolveHosts::Never;
    options
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())])
}

fn service(data: RData) -> Option<Service> {
    let RData::SRV(srv) = data else { return None };
    let target = srv.target.to_ascii().trim_end_matches('.').to_owned();
    Some(Service { priority: srv.priority, weight: srv.weight, port: srv.port, target })
}
