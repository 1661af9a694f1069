//! The store by itself: what applying a put costs on every server, and what a get looks up.
//!
//! Entries are as large as those of a busy leader, and compactions come when they are due, as a
//! leader proposes them: the history is full, and buffers go round.

use super::{Figure, REPEATS, thread_cpu_ns, timed};
use crate::Result;
use raftd::client::load::{KeyNumber, Layout, Random, float};
use raftd::kv::command::{encode_command, encode_header};
use raftd::kv::{Command, EntryHeader, SliceLimits, Sliced, Store, StoreOptions};
use raftd::limits::HISTORY_BYTES_DEFAULT;
use raftd::types::{LogPosition, Term};
use std::hint::black_box;

/// Commands of an entry.
const COMMANDS: u32 = 400;

/// Bytes of a value.
const VALUE_BYTES: usize = 256;

/// Versions freed after an entry, beside those that its own commands free.
const TIDY: usize = 64;

/// Operations of one measurement.
const OPERATIONS: u32 = 100_000;

/// What a server writes of a checkpoint in one turn.
const SLICE: SliceLimits = SliceLimits { steps: 256, bytes: 64 * 1024 };

const MIB: u64 = 1 << 20;

struct Bench {
    store: Store,
    layout: Layout,
    key: Vec<u8>,
    value: [u8; VALUE_BYTES],
    payload: Vec<u8>,
}

/// New keys, puts and gets in a store of `keys` keys.
pub(super) fn measure(keys: u32, name: &str) -> Result<Vec<Figure>> {
    let options = StoreOptions { index_seed: 7, history_bytes_max: HISTORY_BYTES_DEFAULT };
    let mut bench = Bench {
        store: Store::new(options),
        layout: Layout::new(b"key-", 16, VALUE_BYTES).ok_or("a key has room for its number")?,
        key: Vec::new(),
        value: [0x5a; VALUE_BYTES],
        payload: Vec::new(),
    };
    let mut next = 0..;
    let first = next.by_ref().take(usize::try_from(keys)?);
    bench.put_all(first)?;
    // What is added to learn what adding costs must not change the size that it is measured at.
    let few = (keys / 50).clamp(COMMANDS, OPERATIONS);
    let new = bench.timed(few, || next.next().unwrap_or_default())?;
    let mut random = Random::new(7);
    // Until the history is full and its buffers go round.
    let warm: Vec<u32> = (0..4 * OPERATIONS).map(|_| random.below(keys)).collect();
    bench.put_all(warm.into_iter())?;
    let put = bench.timed(OPERATIONS, || random.below(keys))?;
    let drawn: Vec<u32> = (0..OPERATIONS).map(|_| random.below(keys)).collect();
    let get = timed(OPERATIONS, || {
        for key in &drawn {
            bench.layout.write_key(KeyNumber(*key), &mut bench.key);
            let found = bench.store.get(&bench.key).ok_or("a key is missing")?;
            black_box(found.value.first());
        }
        Ok(())
    })?;
    let checkpoint = bench.checkpoints()?;
    let (beside, after) = bench.puts_around_a_checkpoint(|| random.below(keys))?;
    Ok(vec![
        Figure::of(format!("{name}: new key"), &new)?,
        Figure::of(format!("{name}: put"), &put)?,
        Figure::of(format!("{name}: get"), &get)?,
        Figure::of(format!("{name}: MiB of a snapshot"), &checkpoint)?,
        Figure::of(format!("{name}: put beside a snapshot"), &beside)?,
        Figure::of(format!("{name}: put after a snapshot"), &after)?,
    ])
}

impl Bench {
    /// The CPU time of a put, some times; `next` draws the keys. Making the entries is not in it.
    fn timed(&mut self, count: u32, mut next: impl FnMut() -> u32) -> Result<Vec<f64>> {
        (0..REPEATS).map(|_| self.put_ns(count, &mut next)).collect()
    }

    fn put_ns(&mut self, count: u32, next: &mut impl FnMut() -> u32) -> Result<f64> {
        let mut keys = (0..count).map(|_| next());
        let mut spent = 0.0;
        while self.fill(&mut keys) {
            let start_ns = thread_cpu_ns();
            self.apply()?;
            spent += thread_cpu_ns() - start_ns;
        }
        Ok(spent / f64::from(count))
    }

    /// The CPU time of a MiB of a checkpoint, some times, as a loop that serves writes it.
    fn checkpoints(&mut self) -> Result<Vec<f64>> {
        let mut block = Vec::new();
        let mut ns = Vec::with_capacity(REPEATS);
        for _ in 0..REPEATS {
            let start_ns = thread_cpu_ns();
            let mut checkpoint = self.store.begin_checkpoint();
            let mut bytes = 0_u64;
            while self.store.write_checkpoint(&mut checkpoint, &mut block, SLICE) == Sliced::More {
                bytes += u64::try_from(block.len())?;
                black_box(block.first());
                block.clear();
            }
            bytes += u64::try_from(block.len())?;
            block.clear();
            drop(self.store.end_checkpoint(checkpoint));
            ns.push((thread_cpu_ns() - start_ns) / (float(bytes) / float(MIB)));
        }
        Ok(ns)
    }

    /// The CPU time of a put while a checkpoint is pinned, and of those that follow it, some times.
    /// What is compacted meanwhile is freed afterwards.
    fn puts_around_a_checkpoint(
        &mut self,
        mut next: impl FnMut() -> u32,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut beside, mut after) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            let checkpoint = self.store.begin_checkpoint();
            beside.push(self.put_ns(OPERATIONS, &mut next)?);
            drop(self.store.end_checkpoint(checkpoint));
            after.push(self.put_ns(OPERATIONS, &mut next)?);
            // Until nothing of it is left.
            let rest: Vec<u32> = (0..2 * OPERATIONS).map(|_| next()).collect();
            self.put_all(rest.into_iter())?;
        }
        Ok((beside, after))
    }

    fn put_all(&mut self, mut keys: impl Iterator<Item = u32>) -> Result<()> {
        while self.fill(&mut keys) {
            self.apply()?;
        }
        Ok(())
    }

    /// Makes an entry of the next keys; false if there are none.
    fn fill(&mut self, keys: &mut impl Iterator<Item = u32>) -> bool {
        self.payload.clear();
        encode_header(&mut self.payload, EntryHeader { stamp_ms: 1 });
        let header = self.payload.len();
        for key in keys.take(usize::try_from(COMMANDS).expect("a small number")) {
            self.layout.write_key(KeyNumber(key), &mut self.key);
            let command = Command::Put { key: &self.key, value: &self.value };
            encode_command(&mut self.payload, command);
        }
        let some = self.payload.len() > header;
        if let Some(revision) = self.store.compaction_due().filter(|_| some) {
            encode_command(&mut self.payload, Command::Compact { revision });
        }
        some
    }

    fn apply(&mut self) -> Result<()> {
        let position = LogPosition::new(Term::new(1), self.store.applied().next());
        self.store.apply(position, &self.payload, &mut |answer| {
            black_box(answer.outline);
        })?;
        self.store.tidy(TIDY);
        Ok(())
    }
}
