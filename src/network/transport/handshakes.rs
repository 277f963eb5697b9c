//! The handshakes of peers that dial us. Only so many are under way at once; one more ends the one that `crowd` chooses,
//! unless that comes from the same subnet and may still end well: then the newcomer is refused. So who begins handshakes and
//! does not go on keeps nobody else out, and many who dial at once do not end each other's.
//! Used by `super`; dials of our own are not counted here.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{AbortHandle, abortable};
use libp2p::Multiaddr;

use crate::network::{addresses, crowd};

/// How many may be under way: each costs a key exchange and the buffers of a connection.
pub(in crate::network) const HANDSHAKES_MAX: usize = 48;

/// A handshake takes less on most paths.
const USUAL: Duration = Duration::from_secs(1);

type UnderWay = Arc<Mutex<BTreeMap<u64, Handshake>>>;

#[derive(Debug)]
struct Handshake {
    ip: IpAddr,
    began: Instant,
    abort: AbortHandle,
}

/// Those under way.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    begun: u64,
    under_way: UnderWay,
}

/// One of them, which counts until it is dropped.
struct Counted {
    number: u64,
    under_way: UnderWay,
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.number);
    }
}

fn lock(under_way: &UnderWay) -> MutexGuard<'_, BTreeMap<u64, Handshake>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handshakes {
    /// Counts `handshake`, with a peer at `from`, from `began` until it ends; one that has to give way, or for which there is no
    /// room, ends with an error of kind `ConnectionAborted`.
    pub(super) fn begin<O, F: Future<Output = io::Result<O>>>(
        &mut self,
        from: &Multiaddr,
        handshake: F,
        began: Instant,
    ) -> impl Future<Output = io::Result<O>> + use<O, F> {
        let ip = addresses::ip(from);
        let (handshake, abort) = abortable(handshake);
        self.begun += 1;
        let number = self.begun;
        {
            let mut under_way = lock(&self.under_way);
            under_way.insert(number, Handshake { ip, began, abort });
            if under_way.len() > HANDSHAKES_MAX {
                end_one(&mut under_way, number);
            }
        }
        let under_way = Arc::clone(&self.under_way);
        let counted = Counted { number, under_way };
        async move {
            let _counted = counted;
            let crowded = |_| Err(io::ErrorKind::ConnectionAborted.into());
            handshake.await.unwrap_or_else(crowded)
        }
    }
}

/// One of them gives way to the `newest`, or that is refused.
fn end_one(under_way: &mut BTreeMap<u64, Handshake>, newest: u64) {
    let held = under_way
        .iter()
        .map(|(number, handshake)| (handshake.ip, *number));
    let chosen = crowd::gives_way(held).unwrap_or(newest);
    let (Some(handshake), Some(newcomer)) = (under_way.get(&chosen), under_way.get(&newest)) else {
        return;
    };
    let may_end_well = newcomer.began.duration_since(handshake.began) < USUAL;
    let is_kin = crowd::subnet(handshake.ip) == crowd::subnet(newcomer.ip);
    let ended = if is_kin && may_end_well {
        newest
    } else {
        chosen
    };
    if let Some(handshake) = under_way.remove(&ended) {
        handshake.abort.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;
    use futures::future::pending;

    use super::*;

    fn at(ip: &str) -> Multiaddr {
        format!("/ip4/{ip}/tcp/4001").parse().unwrap()
    }

    type Endless = futures::future::BoxFuture<'static, io::Result<()>>;

    fn endless(handshakes: &mut Handshakes, ip: &str, began: Instant) -> Endless {
        let from = at(ip);
        handshakes.begin(&from, pending(), began).boxed()
    }

    fn has_ended(handshake: &mut Endless) -> bool {
        let outcome = handshake.now_or_never();
        outcome.is_some_and(|outcome| {
            assert_eq!(
                outcome.unwrap_err().kind(),
                io::ErrorKind::ConnectionAborted
            );
            true
        })
    }

    #[test]
    fn one_too_many_ends_a_handshake_of_whoever_has_most() {
        let (mut handshakes, now) = (Handshakes::default(), Instant::now());
        let mut honest = endless(&mut handshakes, "192.0.2.1", now);
        let mut idle: Vec<_> = (1..HANDSHAKES_MAX)
            .map(|host| endless(&mut handshakes, &format!("198.51.100.{host}"), now))
            .collect();
        assert!(!idle.iter_mut().any(has_ended));
        let mut newcomer = endless(&mut handshakes, "203.0.113.1", now);
        assert!(has_ended(&mut idle.remove(0)), "the oldest of them");
        assert!(!idle.iter_mut().any(has_ended));
        assert!(!has_ended(&mut honest) && !has_ended(&mut newcomer));
    }

    #[test]
    fn one_too_many_of_the_same_network_is_refused_until_others_take_too_long() {
        let (mut handshakes, now) = (Handshakes::default(), Instant::now());
        let mut held: Vec<_> = (0..HANDSHAKES_MAX)
            .map(|_| endless(&mut handshakes, "192.0.2.1", now))
            .collect();
        assert!(has_ended(&mut endless(&mut handshakes, "192.0.2.1", now)));
        assert!(!held.iter_mut().any(has_ended));
        let mut newcomer = endless(&mut handshakes, "192.0.2.1", now + USUAL);
        assert!(!has_ended(&mut newcomer));
        assert!(has_ended(&mut held[0]), "it takes too long");
    }

    #[test]
    fn what_has_ended_takes_no_place() {
        let (mut handshakes, now) = (Handshakes::default(), Instant::now());
        let mut first = endless(&mut handshakes, "192.0.2.1", now);
        for _ in 0..HANDSHAKES_MAX {
            let done = handshakes.begin(&at("192.0.2.1"), async { Ok(()) }, now);
            done.now_or_never().unwrap().unwrap();
            // Refused before it was polled.
            drop(endless(&mut handshakes, "192.0.2.1", now));
        }
        assert!(!has_ended(&mut first));
    }
}
