//! Who watches: streams that several watches share, each of which begins where a list ended.

use super::controllers::{HEARTBEATS, NAMESPACES, heartbeat};
use super::store::Store;
use super::{API_SERVERS, Size, WATCHES_PER_STREAM};
use crate::asking::{Scene, outcome_of, pause};
use crate::dice::Dice;
use crate::harness::PATIENCE;
use crate::hearing::{Ear, Line};
use crate::history::checker::watches::{Watched, Wish};
use crate::program::prefix_end;
use raftd::client::Deadline;
use raftd::gateway::proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// How long a stream may be silent before it is asked how far it is: what Kubernetes does for reads
/// from its cache.
const SILENCE: Duration = Duration::from_millis(100);

/// Responses without events, which say how far a watch is.
#[derive(Default, Debug)]
pub(super) struct Bookmarks {
    /// Because the stream was asked.
    pub(super) asked_for: u64,
    /// Because time has passed.
    pub(super) by_themselves: u64,
}

impl Bookmarks {
    pub(super) fn add(&mut self, other: &Bookmarks) {
        self.asked_for += other.asked_for;
        self.by_themselves += other.by_themselves;
    }
}

/// Keys with a prefix; or the one key.
fn wish(nth: u64) -> Wish {
    let prefix = match nth % WATCHES_PER_STREAM {
        0 => "/registry/pods/".to_owned(),
        1 => format!("/registry/pods/ns-{}/", nth / WATCHES_PER_STREAM % NAMESPACES),
        2 => "/registry/events/".to_owned(),
        3 => "/registry/".to_owned(),
        _ => {
            let key = heartbeat(nth / WATCHES_PER_STREAM % HEARTBEATS).into_bytes();
            return Wish { key, prev_kv: true, ..Wish::default() };
        }
    };
    let (end, key) = (prefix_end(&prefix).to_vec(), prefix.into_bytes());
    Wish { key, end, prev_kv: true, ..Wish::default() }
}

/// The watches of a stream, until they have heard everything. What their lists said is judged
/// where others list.
pub(super) async fn reflect(
    scene: Arc<Scene>,
    last: Arc<AtomicU64>,
    size: Size,
    stream: u64,
) -> (Watched, Bookmarks) {
    let server = usize::try_from(stream).unwrap() % API_SERVERS;
    let mut dice = Dice(size.seed ^ (stream << 48));
    let mut store = Store::new(Arc::clone(&scene), server, 60 + usize::try_from(stream).unwrap());
    let (mut watched, mut bookmarks) = (Watched::default(), Bookmarks::default());
    let mut ears = Vec::new();
    for nth in 0..WATCHES_PER_STREAM {
        // Most go on from a list; some are content with what comes.
        let start = if dice.once_in(4) { 0 } else { list(&mut store).await };
        ears.push(Ear::new(wish(stream * WATCHES_PER_STREAM + nth), start));
    }
    let mut give_up = None;
    'lines: while !scene.is_over.load(Ordering::Relaxed) {
        let requests: Vec<_> = (1..).zip(&mut ears).map(|(id, ear)| ear.request(id)).collect();
        let clients = scene.clients().swap_remove(server);
        let opened = timeout(scene.patience, Line::open(&clients, requests)).await;
        let Ok(Ok(mut line)) = opened else { continue };
        loop {
            let done = last.load(Ordering::SeqCst);
            let least = ears.iter().map(|ear| ear.listener.heard.up_to).min().unwrap();
            if done > 0 && least >= done {
                break 'lines;
            }
            let limit = (done > 0).then(|| *give_up.get_or_insert(Deadline::after(PATIENCE)));
            assert!(!limit.is_some_and(Deadline::has_passed), "heard up to {least}, not {done}");
            match timeout(SILENCE, line.next()).await {
                Err(_) => line.ask_progress(),
                Ok(Ok(Some(response))) => {
                    let late = hear(&mut ears, &response, &mut bookmarks, &mut watched);
                    late.into_iter().for_each(|request| line.create(request));
                }
                Ok(Ok(None)) => continue 'lines,
                Ok(Err(why)) => {
                    // Nobody leads, or the gateway says why not.
                    outcome_of(&why);
                    continue 'lines;
                }
            }
        }
    }
    watched.heard.extend(ears.into_iter().map(|ear| ear.listener.heard));
    (watched, bookmarks)
}

/// The revision behind a list; 0 if there was no answer in time.
async fn list(store: &mut Store) -> u64 {
    for _ in 0..10 {
        if let Some(listed) = store.list("/registry/pods/", 500).await {
            return listed.revision + 1;
        }
        pause(SILENCE).await;
    }
    0
}

/// A response, for the one or for all. What a watch needed and is compacted it asks for anew: here
/// is the request.
fn hear(
    ears: &mut [Ear],
    response: &WatchResponse,
    bookmarks: &mut Bookmarks,
    watched: &mut Watched,
) -> Option<WatchCreateRequest> {
    if response.watch_id == -1 {
        assert!(response.events.is_empty() && !response.canceled, "{response:?}");
        bookmarks.asked_for += 1;
        // One that is asked for again has not opened, and is not meant.
        for ear in ears.iter_mut().filter(|ear| ear.is_open) {
            assert!(ear.hear(response).is_none());
        }
        return None;
    }
    let at = usize::try_from(response.watch_id - 1).expect("it is one of ours");
    let ear = &mut ears[at];
    if ear.is_open && response.events.is_empty() && !response.canceled {
        bookmarks.by_themselves += 1;
    }
    let late = ear.hear(response)?;
    watched.heard.push(ear.listener.skip_to(late.compact_revision));
    watched.compacted.push((late.needed, late.compact_revision));
    Some(ear.request(response.watch_id))
}
