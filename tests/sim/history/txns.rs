//! Transactions: what they ask for, what a store makes of them, and what they answer. All changes
//! of one have one revision; compares see the store before it, its requests what those before them
//! have left.

use super::model::{Model, RowRef};
use super::{RangeArgs, Row, as_u64};

/// Requests of which one branch is done, all at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Txn {
    pub(crate) compares: Vec<Compare>,
    pub(crate) then: Vec<Request>,
    pub(crate) otherwise: Vec<Request>,
}

/// What must hold of each key of a range; of one that is not there, if there is none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Compare {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Vec<u8>,
    pub(crate) relation: Relation,
    pub(crate) operand: Operand,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Relation {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What of the key is compared, and with what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Operand {
    Version(u64),
    Create(u64),
    Mod(u64),
    Value(Vec<u8>),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Request {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8>, end: Vec<u8> },
    Range { key: Vec<u8>, end: Vec<u8>, limit: u64 },
    Txn(Txn),
}

/// What a transaction answers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Done {
    /// Whether its compares held.
    pub(crate) succeeded: bool,
    /// What each request of the branch came to.
    pub(crate) results: Vec<Got>,
}

/// What a request came to. Changes say what was there before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Got {
    Put { before: Option<Row> },
    Delete { deleted: u64, before: Vec<Row> },
    Range { rows: Vec<Row>, more: bool, count: u64 },
    Txn(Done),
}

impl Txn {
    pub(crate) fn branch(&self, hold: bool) -> &[Request] {
        if hold { &self.then } else { &self.otherwise }
    }

    /// Every request in it, of both branches and of the transactions inside.
    pub(crate) fn each(&self, visit: &mut impl FnMut(&Request)) {
        for request in self.then.iter().chain(&self.otherwise) {
            visit(request);
            if let Request::Txn(inner) = request {
                inner.each(visit);
            }
        }
    }

    /// The values that it may put.
    pub(crate) fn values_mut(&mut self, visit: &mut impl FnMut(&mut Vec<u8>)) {
        for request in self.then.iter_mut().chain(&mut self.otherwise) {
            match request {
                Request::Put { value, .. } => visit(value),
                Request::Txn(inner) => inner.values_mut(visit),
                Request::Delete { .. } | Request::Range { .. } => {}
            }
        }
    }
}

impl Done {
    /// How many keys it changed.
    pub(crate) fn keys(&self) -> u64 {
        let keys = |got: &Got| match got {
            Got::Put { .. } => 1,
            Got::Delete { deleted, .. } => *deleted,
            Got::Range { .. } => 0,
            Got::Txn(inner) => inner.keys(),
        };
        self.results.iter().map(keys).sum()
    }

    /// Every request that was done with what it came to. `false`: these are answers to other
    /// requests.
    pub(crate) fn each<'t>(
        &'t self,
        txn: &'t Txn,
        visit: &mut impl FnMut(&'t Request, &'t Got),
    ) -> bool {
        let branch = txn.branch(self.succeeded);
        let fit = |(request, got): (&'t Request, &'t Got)| match (request, got) {
            (Request::Txn(inner), Got::Txn(done)) => done.each(inner, visit),
            (Request::Put { .. }, Got::Put { .. })
            | (Request::Delete { .. }, Got::Delete { .. })
            | (Request::Range { .. }, Got::Range { .. }) => {
                visit(request, got);
                true
            }
            (_, _) => false,
        };
        branch.len() == self.results.len() && branch.iter().zip(&self.results).all(fit)
    }
}

impl Compare {
    fn holds(&self, model: &Model) -> bool {
        let mut rows = model.rows(&self.key, &self.end, model.revision()).peekable();
        match rows.peek() {
            Some(_) => rows.all(|row| self.holds_of(&row)),
            None => match self.operand {
                Operand::Value(_) => false,
                Operand::Version(_) | Operand::Create(_) | Operand::Mod(_) => {
                    let (key, value): (&[u8], &[u8]) = (&[], &[]);
                    let row =
                        RowRef { key, value, create_revision: 0, mod_revision: 0, version: 0 };
                    self.holds_of(&row)
                }
            },
        }
    }

    fn holds_of(&self, row: &RowRef<'_>) -> bool {
        let order = match &self.operand {
            Operand::Version(version) => row.version.cmp(version),
            Operand::Create(revision) => row.create_revision.cmp(revision),
            Operand::Mod(revision) => row.mod_revision.cmp(revision),
            Operand::Value(value) => row.value.cmp(value),
        };
        match self.relation {
            Relation::Equal => order.is_eq(),
            Relation::Greater => order.is_gt(),
            Relation::Less => order.is_lt(),
            Relation::NotEqual => order.is_ne(),
        }
    }
}

/// Which branches are taken: of the transaction, then of those in it.
struct Way {
    hold: bool,
    inner: Vec<Way>,
}

fn choose(txn: &Txn, model: &Model) -> Way {
    let hold = txn.compares.iter().all(|compare| compare.holds(model));
    let inner = |request: &Request| match request {
        Request::Txn(inner) => Some(choose(inner, model)),
        Request::Put { .. } | Request::Delete { .. } | Request::Range { .. } => None,
    };
    Way { hold, inner: txn.branch(hold).iter().filter_map(inner).collect() }
}

/// Does a transaction.
pub(super) fn transact(txn: &Txn, model: &mut Model) -> Done {
    let way = choose(txn, model);
    let revision = model.revision() + 1;
    run(txn, &way, model, revision)
}

fn run(txn: &Txn, way: &Way, model: &mut Model, revision: u64) -> Done {
    let mut inner = way.inner.iter();
    let mut results = Vec::new();
    for request in txn.branch(way.hold) {
        results.push(match request {
            Request::Put { key, value } => {
                let before = rows(model, key, &[], revision).pop();
                model.put_at(revision, key, value);
                Got::Put { before }
            }
            Request::Delete { key, end } => {
                let before = rows(model, key, end, revision);
                model.delete_at(revision, key, end);
                Got::Delete { deleted: as_u64(before.len()), before }
            }
            Request::Range { key, end, limit } => {
                let mut found = rows(model, key, end, revision);
                let count = as_u64(found.len());
                let most = if *limit == 0 { count } else { count.min(*limit) };
                found.truncate(usize::try_from(most).expect("no more than there are"));
                Got::Range { rows: found, more: most < count, count }
            }
            Request::Txn(txn) => {
                let way = inner.next().expect("chosen for each");
                Got::Txn(run(txn, way, model, revision))
            }
        });
    }
    Done { succeeded: way.hold, results }
}

/// The keys as they are, with what was done at `revision` so far.
fn rows(model: &Model, key: &[u8], end: &[u8], revision: u64) -> Vec<Row> {
    model.rows(key, end, revision).map(RowRef::to_row).collect()
}

/// A read in a transaction as one by itself.
pub(super) fn as_range(key: &[u8], end: &[u8], limit: u64) -> RangeArgs {
    RangeArgs { key: key.to_vec(), end: end.to_vec(), limit, ..RangeArgs::default() }
}
