//! A bad network on loopback: a UDP relay that loses, delays, goes dark, and leads elsewhere.
//!
//! Clients talk to its address; each gets a socket of its own towards the server. What it does to
//! packets is drawn from a seed, so a run can be had again as far as the kernel's scheduling allows.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    task::{JoinHandle, JoinSet},
};

/// What happens to every packet, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Of a hundred packets, so many are lost.
    pub loss: u8,
    /// How long each is under way.
    pub delay: Duration,
    /// All from clients are lost.
    pub deaf: bool,
    /// All to clients are lost.
    pub mute: bool,
    /// Bytes of a second that the line carries in each direction; what comes faster waits in line, and what
    /// would wait for longer than a second is lost, as at a router.
    pub rate: Option<u32>,
    /// Larger packets are lost. An Ethernet carries 1472 bytes.
    pub largest: Option<u16>,
}

impl Faults {
    /// Nothing passes.
    pub fn black_hole() -> Faults {
        Faults { deaf: true, mute: true, ..Faults::default() }
    }
}

/// A relay. Dropping it closes its port.
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    server: SocketAddr,
    faults: Faults,
    /// Grows when clients shall appear under new addresses.
    path: u64,
    seed: u64,
    passed: u64,
    lost: u64,
    /// When the line will have carried what waits: towards the server, towards the clients.
    carried: [tokio::time::Instant; 2],
}

/// The longest that a packet waits for a slow line.
const LINE: Duration = Duration::from_secs(1);

impl Relay {
    /// Relays to this server.
    pub async fn start(server: SocketAddr) -> io::Result<Relay> {
        Relay::at(UdpSocket::bind(("127.0.0.1", 0)).await?, server)
    }

    /// The same for clients that find it at this socket, which may belong to another network than this thread's: what
    /// the server hears comes from here. Wants a runtime of tokio.
    pub fn at(front: UdpSocket, server: SocketAddr) -> io::Result<Relay> {
        let front = Arc::new(front);
        let address = front.local_addr()?;
        let carried = [tokio::time::Instant::now(); 2];
        let state =
            State { server, faults: Faults::default(), path: 0, seed: 1, passed: 0, lost: 0, carried };
        let state = Arc::new(Mutex::new(state));
        let task = tokio::spawn(run(front, state.clone()));
        Ok(Relay { address, state, task })
    }

    /// Where clients find it.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this happens.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// From now on, it leads to another server.
    pub fn redirect(&self, server: SocketAddr) {
        let mut state = self.state();
        state.server = server;
        state.path += 1;
    }

    /// From now on, clients appear to the server under other addresses, as behind a NAT that forgot them.
    pub fn forget_paths(&self) {
        self.state().path += 1;
    }

    /// Packets that passed and packets that were lost.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.passed, state.lost)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The way of one client's packets.
struct Path {
    number: u64,
    back: Arc<UdpSocket>,
}

async fn run(front: Arc<UdpSocket>, state: Arc<Mutex<State>>) {
    let mut paths: BTreeMap<SocketAddr, Path> = BTreeMap::new();
    let mut returns = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        let (fate, server, number) = {
            let mut state = lock(&state);
            (state.draw(0, length), state.server, state.path)
        };
        let Some(delay) = fate else { continue };
        if paths.get(&client).is_none_or(|path| path.number != number) {
            let Ok(back) = UdpSocket::bind(("127.0.0.1", 0)).await else { continue };
            if back.connect(server).await.is_err() {
                continue;
            }
            let back = Arc::new(back);
            returns.spawn(answers(front.clone(), back.clone(), client, state.clone()));
            paths.insert(client, Path { number, back });
        }
        let back = paths[&client].back.clone();
        let packet = buffer[..length].to_vec();
        after(delay, async move { drop(back.send(&packet).await) }).await;
    }
}

async fn answers(front: Arc<UdpSocket>, back: Arc<UdpSocket>, client: SocketAddr, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // A closed port is an error here; the client is not told, as by a router that says nothing.
        let Ok(length) = back.recv(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let fate = lock(&state).draw(1, length);
        let Some(delay) = fate else { continue };
        let (front, packet) = (front.clone(), buffer[..length].to_vec());
        after(delay, async move { drop(front.send_to(&packet, client).await) }).await;
    }
}

async fn after(delay: Duration, send: impl Future<Output = ()> + Send + 'static) {
    if delay.is_zero() {
        return send.await;
    }
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        send.await;
    });
}

impl State {
    /// How long a packet is under way, unless it is lost.
    fn draw(&mut self, direction: usize, length: usize) -> Option<Duration> {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dark = [self.faults.deaf, self.faults.mute][direction];
        let drawn = ((self.seed >> 33) % 100) < u64::from(self.faults.loss);
        let large = self.faults.largest.is_some_and(|largest| length > largest.into());
        let queued = if large { None } else { self.queue(direction, length) };
        let lost = dark || drawn || queued.is_none();
        *(if lost { &mut self.lost } else { &mut self.passed }) += 1;
        queued.filter(|_| !lost).map(|queued| queued + self.faults.delay)
    }

    /// How long a packet waits for the line, unless the line is full.
    fn queue(&mut self, direction: usize, length: usize) -> Option<Duration> {
        let Some(rate) = self.faults.rate else { return Some(Duration::ZERO) };
        let now = tokio::time::Instant::now();
        let begins = self.carried[direction].max(now);
        if begins - now > LINE {
            return None;
        }
        self.carried[direction] = begins + Duration::from_secs_f64(length as f64 / f64::from(rate.max(1)));
        Some(self.carried[direction] - now)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
