//! What reads and conditions were answered, against the model at the revision of the answer.

use super::model::{Model, RowRef};
use super::witness::violation;
use super::{Answer, Command, Op, OpKind, Outcome, RangeArgs, Row, Rule, Violation, as_u64};

/// A reply may be cut short above this. Bytes; protocol.md, `RANGE_REPLY_BYTES_MAX`.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a row costs in a reply beside its key and value, at most. Bytes.
const ROW_BYTES_MAX: usize = 64;

pub(super) fn check(ops: &[Op], model: &Model) -> Result<(), Violation> {
    for op in ops {
        let Outcome::Answered(answer) = &op.outcome else { continue };
        let wrong = match &op.kind {
            OpKind::Change(command) => {
                let seen = || sight(model, command, answer, op.saw.as_ref()?);
                condition(model, command, answer).or_else(seen)
            }
            OpKind::Range(args) => read(model, args, answer),
        };
        if let Some((rule, why)) = wrong {
            return Err(violation(rule, why, &[op]));
        }
    }
    Ok(())
}

/// Whoever was refused was told the right reason.
fn condition(model: &Model, command: &Command, answer: &Answer) -> Wrong {
    let (Command::PutIf { key, .. }, Answer::PutIf { revision, refused: Some(found) }) =
        (command, answer)
    else {
        return None;
    };
    let there = model.mod_revision(key, *revision);
    (*found != there).then(|| (Rule::Answer, format!("the key was of {there}")))
}

/// What a change said of its keys is what they were: before it, or at it if it did nothing.
fn sight(model: &Model, command: &Command, answer: &Answer, saw: &[Row]) -> Wrong {
    let (key, end): (_, &[u8]) = match command {
        Command::Put { key, .. } | Command::PutIf { key, .. } => (key, &[]),
        Command::Delete { key, end } => (key, end),
        // It is judged as a whole, where it takes its place in the log.
        Command::Txn(_) => return None,
        Command::Compact { .. } | Command::Lease(_) => return None,
    };
    let at = match answer {
        Answer::Put { revision } | Answer::PutIf { revision, refused: None } => revision - 1,
        Answer::Delete { revision, deleted } => revision - u64::from(*deleted > 0),
        Answer::PutIf { revision, refused: Some(_) } => *revision,
        Answer::Txn { .. }
        | Answer::Range { .. }
        | Answer::Compacted { .. }
        | Answer::Future { .. } => return None,
    };
    let there: Vec<Row> = model.rows(key, end, at).map(RowRef::to_row).collect();
    let shown = |rows: &[Row]| rows.iter().map(Row::to_string).collect::<Vec<_>>().join(" ");
    (there != saw).then(|| {
        let why = format!("at {at} there was [{}], not [{}]", shown(&there), shown(saw));
        (Rule::Answer, why)
    })
}

fn read(model: &Model, args: &RangeArgs, answer: &Answer) -> Wrong {
    match answer {
        Answer::Range { revision, rows, more, count } => {
            let found = Found { revision: *revision, rows, more: *more, count: *count };
            judge(model, args, &found)
        }
        Answer::Compacted { compact_revision } => {
            compacted(model, args.revision, *compact_revision)
        }
        Answer::Future { revision } => future(model, args.revision, *revision),
        Answer::Put { .. } | Answer::Delete { .. } | Answer::PutIf { .. } | Answer::Txn { .. } => {
            None
        }
    }
}

struct Found<'o> {
    revision: u64,
    rows: &'o [Row],
    more: bool,
    count: u64,
}

type Wrong = Option<(Rule, String)>;

fn judge(model: &Model, args: &RangeArgs, found: &Found<'_>) -> Wrong {
    let newest = model.revision();
    if found.revision > newest || found.revision < super::REVISION_EMPTY {
        return Some((Rule::Answer, format!("the store never was there; it ended at {newest}")));
    }
    if args.revision > found.revision {
        return Some((Rule::Answer, "that revision did not exist yet".to_owned()));
    }
    let compacted = model.compacted_before(found.revision);
    if args.revision > 0 && args.revision < compacted {
        return Some((Rule::Compaction, format!("the store was compacted to {compacted}")));
    }
    let at = if args.revision == 0 { found.revision } else { args.revision };
    rows(model, args, at, found).map(|why| (Rule::Answer, format!("at revision {at}: {why}")))
}

fn rows(model: &Model, args: &RangeArgs, at: u64, found: &Found<'_>) -> Option<String> {
    let (mut count, mut bytes, mut cut) = (0, 0, false);
    let mut sent = found.rows.iter();
    for row in model.rows(&args.key, &args.end, at) {
        count += 1;
        let within_limit = args.limit == 0 || count <= args.limit;
        if args.count_only || !within_limit {
            continue;
        }
        let expected = if args.keys_only { RowRef { value: &[], ..row } } else { row };
        let size = ROW_BYTES_MAX + expected.key.len() + expected.value.len();
        match sent.next() {
            Some(row) if expected.is(row) => bytes += size,
            Some(row) => return Some(format!("there was {}, not {row}", expected.to_row())),
            None if cut || bytes + size > REPLY_BYTES_MAX => cut = true,
            None => return Some(format!("there was {} as well", expected.to_row())),
        }
    }
    if let Some(row) = sent.next() {
        return Some(format!("there was no {row}, or the limit was reached"));
    }
    if found.count != count {
        return Some(format!("there were {count} keys, not {}", found.count));
    }
    let left_out = as_u64(found.rows.len()) < count;
    let more = left_out && !args.count_only;
    (found.more != more).then(|| format!("`more` should be {more}"))
}

/// A revision is compacted if a compaction that there was is above it.
fn compacted(model: &Model, asked: u64, compact_revision: u64) -> Wrong {
    if model.compacted_at(compact_revision).is_none() {
        return Some((Rule::Compaction, format!("it never was compacted to {compact_revision}")));
    }
    let readable = asked == 0 || asked >= compact_revision;
    readable.then(|| (Rule::Compaction, "that revision could still be read".to_owned()))
}

fn future(model: &Model, asked: u64, revision: u64) -> Wrong {
    let newest = model.revision();
    if revision > newest {
        return Some((Rule::Answer, format!("the store ended at {newest}")));
    }
    (asked <= revision).then(|| (Rule::Answer, "that revision existed".to_owned()))
}
