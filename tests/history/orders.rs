//! The search for an order against a search that cannot be wrong: it tries them all.

use super::checker::{Answer, Command, Op, OpKind, Outcome, RangeArgs, Row, Rule, search};
use crate::dice::Dice;

/// A register's op: what it does, and when it ran.
#[derive(Clone, Copy, Debug)]
struct Small {
    call: u64,
    ret: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Put(u8),
    /// 0: not there.
    Get(u8),
    Delete {
        existed: bool,
    },
}

fn op(small: Small) -> Op {
    let key = b"k".to_vec();
    let row = |value: u8| Row {
        key: b"k".to_vec(),
        value: vec![value],
        create_revision: 0,
        mod_revision: 0,
        version: 0,
    };
    let (kind, answer) = match small.what {
        What::Put(value) => {
            let put = Command::Put { key, value: vec![value] };
            (OpKind::Change(put), Answer::Put { revision: 0 })
        }
        What::Delete { existed } => {
            let delete = Command::Delete { key, end: Vec::new() };
            let deleted = u64::from(existed);
            (OpKind::Change(delete), Answer::Delete { revision: 0, deleted })
        }
        What::Get(value) => {
            let rows: Vec<Row> = (value > 0).then(|| row(value)).into_iter().collect();
            let count = rows.len().try_into().unwrap();
            let answer = Answer::Range { revision: 0, rows, more: false, count };
            (OpKind::Range(RangeArgs { key, ..RangeArgs::default() }), answer)
        }
    };
    let (call, ret) = (small.call, Some(small.ret));
    let outcome = Outcome::Answered(answer);
    Op { client: 0, node: 0, boot: 0, call, ret, kind, outcome, saw: None }
}

/// Whether some order explains the rest, when the register holds `value`.
fn explained(rest: &mut Vec<Small>, value: u8) -> bool {
    let first_end = rest.iter().map(|small| small.ret).min();
    let Some(first_end) = first_end else { return true };
    for at in 0..rest.len() {
        let small = rest[at];
        let after = match small.what {
            What::Put(new) => Some(new),
            What::Get(seen) => (seen == value).then_some(value),
            What::Delete { existed } => (existed == (value > 0)).then_some(0),
        };
        if let Some(after) = after
            && small.call <= first_end
        {
            rest.remove(at);
            let found = explained(rest, after);
            rest.insert(at, small);
            if found {
                return true;
            }
        }
    }
    false
}

#[test]
fn the_search_finds_an_order_if_and_only_if_there_is_one() {
    let (mut possible, mut impossible) = (0, 0);
    for seed in 0..40_000 {
        let mut random = Dice(seed);
        let count = 2 + random.index(6);
        let mut value = 0;
        let mut small: Vec<Small> = (0..count)
            .map(|_| {
                let call = u64::try_from(random.index(12)).unwrap();
                let ret = call + 1 + u64::try_from(random.index(8)).unwrap();
                let what = match random.index(4) {
                    0 => {
                        value += 1;
                        What::Put(value)
                    }
                    1 => What::Delete { existed: random.index(2) == 0 },
                    _ => What::Get(u8::try_from(random.index(3)).unwrap()),
                };
                Small { call, ret, what }
            })
            .collect();
        let ops: Vec<Op> = small.iter().copied().map(op).collect();
        let verdict = search(&ops, &[]);
        let expected = explained(&mut small, 0);
        assert_eq!(verdict.is_ok(), expected, "seed {seed}: {small:?}");
        if let Err(violation) = verdict {
            assert_eq!(violation.rule, Rule::Linearizable);
            assert!(!violation.ops.is_empty());
            impossible += 1;
        } else {
            possible += 1;
        }
    }
    assert!(possible > 5_000 && impossible > 5_000, "{possible} and {impossible}");
}

#[test]
fn keys_with_too_much_at_once_are_left_out_and_counted() {
    let together = |value| op(Small { call: 0, ret: 100, what: What::Put(value) });
    let few: Vec<Op> = (1..=16).map(together).collect();
    assert_eq!(search(&few, &[]).unwrap(), (16, 0));
    let many: Vec<Op> = (1..=17).map(together).collect();
    assert_eq!(search(&many, &[]).unwrap(), (0, 17));
    // Up to there a lie is found, and of what is under way then nothing is asked.
    let at = |call, ret, what| op(Small { call, ret, what });
    let later = (1..=17).map(|value| at(50, 100, What::Put(value)));
    let with = |first: &[Op]| -> Vec<Op> { first.iter().cloned().chain(later.clone()).collect() };
    let (put, truth, lie) = (What::Put(20), What::Get(20), What::Get(21));
    let late = at(40, 60, What::Get(3));
    let honest = with(&[at(0, 10, put), at(20, 30, truth), late.clone()]);
    assert_eq!(search(&honest, &[]).unwrap(), (2, 18));
    search(&with(&[at(0, 10, put), at(20, 30, lie), late]), &[]).unwrap_err();
}

#[test]
fn ranges_and_unknown_changes_take_part() {
    let put =
        |call, ret, outcome| Op { ret, outcome, ..op(Small { call, ret: 0, what: What::Put(1) }) };
    let get = |value| op(Small { call: 50, ret: 60, what: What::Get(value) });
    // Unknown and done: seen or not, until it is seen.
    let unknown = put(10, None, Outcome::Unknown);
    search(&[unknown.clone(), get(1)], &[true, false]).unwrap();
    search(&[unknown.clone(), get(0)], &[true, false]).unwrap();
    search(&[unknown, get(1)], &[false, false]).unwrap_err();
    // A range that does not hold the key says that it was not there.
    let done = put(10, Some(20), Outcome::Answered(Answer::Put { revision: 0 }));
    let nothing = |key: &str, end: &str| Op {
        kind: OpKind::Range(RangeArgs { key: key.into(), end: end.into(), ..RangeArgs::default() }),
        ..get(0)
    };
    search(&[done.clone(), nothing("l", "z")], &[]).unwrap();
    search(&[done.clone(), nothing("a", "z")], &[]).unwrap_err();
    // A range delete that found nothing says so too; one that found something says less.
    let delete = |deleted| Op {
        kind: OpKind::Change(Command::Delete { key: b"a".to_vec(), end: b"z".to_vec() }),
        outcome: Outcome::Answered(Answer::Delete { revision: 0, deleted }),
        ..get(0)
    };
    search(&[done.clone(), delete(0)], &[]).unwrap_err();
    search(&[done, delete(1)], &[]).unwrap();
}
