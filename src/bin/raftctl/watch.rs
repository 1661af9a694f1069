//! watch: changes as they happen, until Ctrl-C.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use anyhow::Context;
use raftd::client::{ClientOptions, Deadline, KeyEvent, Watch, WatchOptions};
use raftd::types::Revision;
use serde_json::json;

use super::args::{Format, WatchArgs};
use super::exit::{End, Failure};
use super::output::{self, Shown};
use super::verbs::{reach, span};

/// Prints what comes. Ends when it may not go on, or when nobody reads.
pub(crate) fn watch(
    options: ClientOptions,
    format: Format,
    args: &WatchArgs,
) -> Result<End, Failure> {
    let reach = reach(args.range_end.as_ref(), args.prefix, args.from_key);
    let (key, end) = span(&args.key, reach)?;
    let start = Revision(args.rev.0);
    let wanted = WatchOptions { key, end, start, prev_kv: args.prev_kv, ..WatchOptions::default() };
    let timeout = options.timeout;
    let mut watch = Watch::new(options, wanted);
    // Who has begun to hear waits for as long as it takes; but it should hear soon that it cannot.
    if watch.next(Deadline::after(timeout))?.is_none() {
        return Err(watch.unavailable(timeout).into());
    }
    if format == Format::Table && !print(b"TYPE    REVISION  KEY  VALUE\n")? {
        return Ok(End::Done);
    }
    loop {
        let Some(batch) = watch.next(Deadline::after(Duration::from_secs(60)))? else { continue };
        let text: Vec<u8> = batch.events.iter().flat_map(|event| shown(format, event)).collect();
        if !text.is_empty() && !print(&text)? {
            return Ok(End::Done);
        }
    }
}

fn shown(format: Format, event: &KeyEvent) -> Vec<u8> {
    let kv = &event.kv;
    match format {
        Format::Simple => {
            let kind: &[u8] = if event.is_delete() { b"DELETE\n" } else { b"PUT\n" };
            let before = event.before.as_ref().map(|before| output::lines(Shown::Both, before));
            [kind, &before.unwrap_or_default(), &output::lines(Shown::Both, kv)].concat()
        }
        Format::Json => {
            let kind = if event.is_delete() { "delete" } else { "put" };
            let shown = if event.is_delete() { Shown::Keys } else { Shown::Both };
            let mut line = json!({ "type": kind, "kv": output::kv_json(shown, kv) });
            if let Some(object) = line.as_object_mut() {
                output::insert_before(object, event.before.as_ref());
            }
            output::json_line(&line)
        }
        Format::Table => {
            let kind = if event.is_delete() { "delete" } else { "put" };
            let (key, value) = (kv.key.escape_ascii(), kv.value.escape_ascii());
            format!("{kind:6}  {:8}  {key}  {value}\n", kv.mod_revision.0).into_bytes()
        }
    }
}

/// Prints at once. `false`: nobody reads any more.
fn print(text: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(why) => {
            let why = Err(why).context("cannot write to standard output");
            why.map_err(|why| Failure { end: End::Refused, why })
        }
    }
}
