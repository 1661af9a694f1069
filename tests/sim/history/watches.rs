//! What watches were told, against every change that the model knows: ordered, unique, reliable,
//! atomic, resumable and bookmarkable is to have heard all changes of a span of revisions, each
//! once, and to have known at every moment up to where that is so. The last two the listener notes
//! as they come: `Listener`.

use super::model::Model;
use super::witness::violation;
use super::{Row, Rule, Violation};

/// What is to be heard.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Wish {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Vec<u8>,
    pub(crate) prev_kv: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
}

/// A change as a watch has it. A deleted key has its name and the revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) row: Row,
    pub(crate) before: Option<Row>,
}

/// Everything that was heard of the revisions behind `after`, up to `up_to`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Heard {
    pub(crate) wish: Wish,
    pub(crate) after: u64,
    pub(crate) up_to: u64,
    pub(crate) events: Vec<Event>,
}

/// What watches came to.
#[derive(Clone, Default, Debug)]
pub(crate) struct Watched {
    pub(crate) heard: Vec<Heard>,
    /// Watches that needed a revision and heard that all before another one is compacted.
    pub(crate) compacted: Vec<(u64, u64)>,
}

/// One who watches, wherever: what has come, and up to where all of it has.
#[derive(Clone, Default, Debug)]
pub(crate) struct Listener {
    pub(crate) heard: Heard,
    /// Events of the revision behind, which is not whole.
    part: Vec<Event>,
    /// Where the watch that is open has begun, once it says so.
    begun: bool,
}

impl Listener {
    /// One who is to hear of everything from `start` on, which is 2 or more; 0: of what comes.
    pub(crate) fn new(wish: Wish, start: u64) -> Listener {
        let after = start.saturating_sub(1);
        let heard = Heard { wish, after, up_to: after, events: Vec::new() };
        Listener { heard, part: Vec::new(), begun: false }
    }

    /// The revision to watch from, when a watch is opened now; 0: from what comes.
    pub(crate) fn resume(&mut self) -> u64 {
        self.part.clear();
        self.begun = false;
        if self.heard.up_to == 0 { 0 } else { self.heard.up_to + 1 }
    }

    /// A reply. The error is the promise that it breaks.
    pub(crate) fn hear(
        &mut self,
        revision: u64,
        more: bool,
        events: Vec<Event>,
    ) -> Result<(), String> {
        let heard = &mut self.heard;
        if !std::mem::replace(&mut self.begun, true) {
            // The first one: where it begins. Who asks to go on may be ahead of a server.
            if more || !events.is_empty() {
                return Err("it begins with events".to_owned());
            }
            if heard.up_to == 0 {
                (heard.after, heard.up_to) = (revision, revision);
            } else if revision > heard.up_to {
                return Err(format!("it begins at {revision}, not after {}", heard.up_to));
            }
            return Ok(());
        }
        if revision < heard.up_to {
            return Err(format!("it goes back from {} to {revision}", heard.up_to));
        }
        for event in events {
            let at = event.row.mod_revision;
            let last = self.part.last().map_or(heard.up_to + 1, |event| event.row.mod_revision);
            if at < last {
                return Err(format!("an event of {at} comes where {last} is the least"));
            }
            self.part.push(event);
        }
        let whole = self.part.partition_point(|event| event.row.mod_revision <= revision);
        heard.events.extend(self.part.drain(..whole));
        heard.up_to = revision;
        let within = self.part.iter().all(|event| event.row.mod_revision == revision + 1);
        if within && (more || self.part.is_empty()) {
            Ok(())
        } else {
            Err(format!("a revision after {revision} comes in pieces, more={more}"))
        }
    }

    /// What it needs is compacted up to a revision: it goes on from there, and has a gap.
    pub(crate) fn skip_to(&mut self, compact_revision: u64) -> Heard {
        let next = Listener::new(self.heard.wish.clone(), compact_revision);
        std::mem::replace(self, next).heard
    }
}

pub(super) fn check(watched: &Watched, model: &Model) -> Result<(), Violation> {
    for heard in &watched.heard {
        if let Some(why) = wrong(heard, model) {
            let Heard { wish, after, up_to, .. } = heard;
            let (key, end) = (wish.key.escape_ascii(), wish.end.escape_ascii());
            let why = format!("of {key}..{end} in ({after}, {up_to}]: {why}");
            return Err(violation(Rule::Watch, why, &[]));
        }
    }
    for (needed, compact_revision) in &watched.compacted {
        if needed >= compact_revision || model.compacted_at(*compact_revision).is_none() {
            let why = format!("{needed} is said to be before a compaction to {compact_revision}");
            return Err(violation(Rule::Compaction, why, &[]));
        }
    }
    Ok(())
}

fn wrong(heard: &Heard, model: &Model) -> Option<String> {
    let Heard { wish, after, up_to, events } = heard;
    if *up_to > model.revision() {
        // It may wait for a revision that is never made.
        if let Some(event) = events.iter().find(|it| it.row.mod_revision > model.revision()) {
            return Some(format!("{} was never made", event.row.mod_revision));
        }
    }
    let mut due: Vec<Event> = model.changes(&wish.key, &wish.end).collect();
    due.retain(|event| {
        let at = event.row.mod_revision;
        let kind = if event.row.version == 0 { wish.no_delete } else { wish.no_put };
        !kind && *after < at && at <= *up_to
    });
    let by = |one: &Event, two: &Event| {
        let of = |it: &Event| (it.row.mod_revision, it.row.key.clone());
        of(one).cmp(&of(two))
    };
    due.sort_by(by);
    let mut came = events.clone();
    came.sort_by(by);
    for nth in 0..due.len().max(came.len()) {
        let (due, came) = (due.get(nth), came.get(nth));
        let (Some(due), Some(came)) = (due, came) else {
            let what = due.or(came).map(|event| event.row.to_string()).unwrap_or_default();
            let how = if came.is_none() { "was not heard of" } else { "is one too many" };
            return Some(format!("{what} {how}"));
        };
        if due.row != came.row {
            return Some(format!("{} was heard where {} is due", came.row, due.row));
        }
        // What was there before may be compacted.
        let known = wish.prev_kv && due.row.mod_revision > model.compacted_before(u64::MAX);
        let lost = came.before.is_none() && !known;
        if !lost && (came.before != due.before || !wish.prev_kv) {
            return Some(format!("before {} there was something else", came.row));
        }
    }
    None
}
