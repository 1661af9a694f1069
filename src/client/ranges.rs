//! Ranges, as they come: a server answers in parts, and a client that is cut off in the middle goes
//! on behind the last key, at the same revision. protocol.md, Range.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::types::Revision;
use crate::wire::client::{Consistency, RangeArgs, SortBy};
use crate::wire::error::{Advice, Error as WireError};
use crate::wire::reply::{RangeReply, Reply, ReplyBody};
use crate::wire::sorting::Sortable;

use super::clock::{Deadline, back_off};
use super::cluster::{Client, Intent, KeyValue, Range};
use super::connection::Connection;
use super::error::Error;
use super::requests::own;

/// Reads of the present that compaction overtook, one after the other, before we give up.
const OVERTAKEN_MAX: usize = 8;

/// What a range read found beside the keys that were handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeDone {
    /// The store's revision when the read began.
    pub revision: Revision,
    /// Whether the range has more keys than were handed out.
    pub more: bool,
    /// How many keys the range has in all; not known, and 0, if whoever took them wanted no more.
    pub count: u64,
}

/// One reply.
struct Part {
    kvs: Vec<KeyValue>,
    done: RangeDone,
    goes_on: bool,
}

/// What became of one request.
enum Streamed {
    Whole(RangeDone),
    /// Whoever takes the keys wants no more.
    Stopped(Revision),
    /// There are other parts, and they did not come.
    Lost,
}

/// How far a range is.
struct Way<'a> {
    args: RangeArgs<'a>,
    /// What it reads, once that is known.
    revision: Revision,
    /// The store's when it began.
    named: Revision,
    received: u64,
    last: Vec<u8>,
}

impl Way<'_> {
    fn backwards(&self) -> bool {
        self.args.selection.is_backwards()
    }

    /// Where the rest begins and ends.
    fn rest(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut key, mut end) = (self.args.key.to_vec(), self.args.end.to_vec());
        if self.received > 0 && self.backwards() {
            end.clone_from(&self.last);
        } else if self.received > 0 {
            // The next key after it in the order of bytes.
            key.clone_from(&self.last);
            key.push(0);
        }
        (key, end)
    }

    /// Whether nothing is left: no key is before the smallest one, and its name as an end means
    /// another thing; and a single key is either here or not.
    fn is_over(&self) -> bool {
        let smallest = self.backwards() && (self.last == [0] || self.last == self.args.key);
        self.received > 0 && (smallest || self.args.end.is_empty())
    }
}

impl Client {
    /// Reads a range, all of it at one revision.
    pub fn range(&mut self, args: &RangeArgs<'_>) -> Result<Range, Error> {
        let mut kvs = Vec::new();
        let done = self.range_each(args, &mut |kv| {
            kvs.push(kv);
            ControlFlow::Continue(())
        })?;
        let RangeDone { revision, more, count } = done;
        Ok(Range { revision, kvs, more, count })
    }

    /// The same, key by key as they come, until `each` breaks. What was handed out before an error
    /// is of the range all the same.
    pub fn range_each(
        &mut self,
        args: &RangeArgs<'_>,
        each: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<RangeDone, Error> {
        if args.selection.sorts() {
            let Range { revision, kvs, more, count } = self.sorted_range(args)?;
            let _all = kvs.into_iter().try_for_each(each);
            return Ok(RangeDone { revision, more, count });
        }
        let (revision, named) = (args.revision, Revision(0));
        let mut way = Way { args: *args, revision, named, received: 0, last: Vec::new() };
        let mut lost = false;
        while !way.is_over() && (args.limit == 0 || way.received < args.limit) {
            let (key, end) = way.rest();
            let limit = args.limit.saturating_sub(way.received);
            let rest = RangeArgs { key: &key, end: &end, limit, revision: way.revision, ..*args };
            let streamed = self.stream(&rest, way.named, &mut |revision, kv| {
                if way.received == 0 {
                    way.named = revision;
                    way.revision =
                        if args.revision == Revision(0) { revision } else { args.revision };
                }
                way.received += 1;
                way.last.clone_from(&kv.key);
                each(kv)
            })?;
            match streamed {
                Streamed::Whole(done) if !lost => return Ok(done),
                Streamed::Whole(done) => return self.whole(&way, done.more),
                Streamed::Stopped(revision) => {
                    return Ok(RangeDone { revision, more: true, count: 0 });
                }
                Streamed::Lost => lost = true,
            }
        }
        // The last part, without a key, was lost: whether there is more is to be asked.
        let (key, end) = way.rest();
        let one = RangeArgs { key: &key, end: &end, limit: 1, revision: way.revision, ..*args };
        let more = !way.is_over() && !self.collect(&one, way.named)?.kvs.is_empty();
        self.whole(&way, more)
    }

    /// What is known of a range that came in pieces: the count of each is its own.
    fn whole(&mut self, way: &Way<'_>, more: bool) -> Result<RangeDone, Error> {
        let (revision, count_only) = (way.revision, true);
        let args = RangeArgs { limit: 0, revision, count_only, ..way.args };
        let all = self.collect(&args, way.named)?;
        let revision = if way.received == 0 { all.revision } else { way.named };
        Ok(RangeDone { revision, more, count: all.count })
    }

    /// One request and all its parts, from the beginning again if it is cut off. `made` as for
    /// `first_part`.
    fn collect(&mut self, args: &RangeArgs<'_>, made: Revision) -> Result<Range, Error> {
        loop {
            let mut kvs = Vec::new();
            let streamed = self.stream(args, made, &mut |_, kv| {
                kvs.push(kv);
                ControlFlow::Continue(())
            })?;
            if let Streamed::Whole(RangeDone { revision, more, count }) = streamed {
                return Ok(Range { revision, kvs, more, count });
            }
        }
    }

    /// One request: hands out the keys of its parts, with the store's revision. `made` as for
    /// `first_part`.
    fn stream(
        &mut self,
        args: &RangeArgs<'_>,
        made: Revision,
        each: &mut dyn FnMut(Revision, KeyValue) -> ControlFlow<()>,
    ) -> Result<Streamed, Error> {
        let mut part = self.first_part(args, made)?;
        loop {
            let revision = part.done.revision;
            if part.kvs.into_iter().try_for_each(|kv| each(revision, kv)).is_break() {
                if part.goes_on {
                    // What follows is for nobody.
                    self.connection = None;
                }
                return Ok(Streamed::Stopped(revision));
            }
            if !part.goes_on {
                return Ok(Streamed::Whole(part.done));
            }
            part = match self.next_part()? {
                Some(next) => next,
                None => {
                    back_off(self.deadline());
                    return Ok(Streamed::Lost);
                }
            };
        }
    }

    /// Asks until somebody begins to answer. `made`: a revision that a server has named, so that
    /// all others make it too; 0 is none.
    fn first_part(&mut self, args: &RangeArgs<'_>, made: Revision) -> Result<Part, Error> {
        self.check_size(args.key.len().saturating_add(args.end.len()))?;
        let intent = match args.consistency {
            Consistency::Linearizable | Consistency::Lease => Intent::Read,
            Consistency::Serializable => Intent::ReadHere,
        };
        let (mut overtaken, lag_ends) = (0, self.deadline());
        loop {
            let send = |connection: &mut Connection| connection.range(args);
            let asked = self.call(intent, self.deadline(), send, |body| {
                if let ReplyBody::Range(reply) = body { Some(own_part(&reply)) } else { None }
            });
            match asked {
                // It was of the revision that was newest then: there is another one now.
                Err(Error::Refused { source: WireError::Compacted { .. }, .. })
                    if args.revision == Revision(0) && overtaken < OVERTAKEN_MAX =>
                {
                    overtaken += 1;
                }
                // This one lags: it, or another one, has it soon.
                Err(Error::Refused { source: WireError::FutureRevision { .. }, .. })
                    if args.revision <= made && !lag_ends.has_passed() =>
                {
                    self.connection = None;
                    back_off(lag_ends);
                }
                asked => return asked,
            }
        }
    }

    /// The next part of the request that was made last. `None`: it does not come, and another
    /// request may go on.
    fn next_part(&mut self) -> Result<Option<Part>, Error> {
        // Each part comes in its time, however many there are.
        let patience = Deadline::after(self.options().timeout / 3);
        let Some(mut connection) = self.connection.take() else { return Ok(None) };
        let (id, endpoint) = (connection.last_id(), connection.endpoint().to_owned());
        let answered = match connection.receive(patience) {
            Ok(Reply { id: of, body: ReplyBody::Range(part) }) if of == id => {
                Ok(Some(own_part(&part)))
            }
            Ok(Reply { id: of, body: ReplyBody::Error(source) }) if of == id => {
                match source.advice() {
                    Advice::AskAgain | Advice::Unknown => Ok(None),
                    Advice::GiveUp => Err(Error::Refused { endpoint, source }),
                }
            }
            Ok(_) | Err(_) => return Ok(None),
        };
        self.connection = Some(connection);
        answered
    }

    /// Reads a range in an order of its own. If there are more than a server sorts, all of it is
    /// read by key, and put into order here.
    fn sorted_range(&mut self, args: &RangeArgs<'_>) -> Result<Range, Error> {
        let first = self.collect(args, Revision(0))?;
        if !args.is_cut(first.kvs.len(), first.more) {
            return Ok(first);
        }
        let mut all = self.range(&args.by_key(first.revision))?;
        all.more = args.sort(&mut all.kvs);
        Ok(Range { revision: first.revision, ..all })
    }
}

fn own_part(reply: &RangeReply<'_>) -> Part {
    let RangeReply { revision, more, count, goes_on, .. } = *reply;
    let done = RangeDone { revision, more, count };
    Part { kvs: reply.kvs().map(own).collect(), done, goes_on }
}

impl Sortable for KeyValue {
    fn compare(&self, other: &KeyValue, by: SortBy) -> Ordering {
        match by {
            SortBy::Key => self.key.cmp(&other.key),
            SortBy::Version => self.version.cmp(&other.version),
            SortBy::Create => self.create_revision.cmp(&other.create_revision),
            SortBy::Mod => self.mod_revision.cmp(&other.mod_revision),
            SortBy::Value => self.value.cmp(&other.value),
        }
    }

    fn clear_value(&mut self) {
        self.value.clear();
    }
}
