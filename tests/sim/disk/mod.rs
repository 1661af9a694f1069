//! A disk that does what disks do: it loses, tears and reorders what was not synced, fails a sync,
//! is full, rots.
//!
//! ```text
//! written        in the cache; a power loss keeps, loses or tears each page by itself
//! synced         on the platters; only damage (`damage.rs`) takes it away
//! created, removed, renamed   kept or lost by themselves until the directory is synced; a rename
//!                is whole or not at all
//! a failed sync  the pages count as clean and are on no platter (what Linux does)
//! a failed sync of a directory   its changes are kept or lost as with the power, and the file
//!                system takes no more of them until the machine is started anew (what Linux does)
//! a failed write   may have reached the cache all the same; a failed read says nothing
//! full           nothing is created and no file grows; the first pages of a write may be there
//! the fuse       counts changes; when it blows, nothing more reaches the disk: the power is gone
//!                in the middle of a job, of background work or of recovery
//! ```

mod content;
mod damage;
mod failures;
mod platter;

pub(crate) use content::{Losses, Tearing};
pub(crate) use damage::Damage;
pub(crate) use failures::{Failure, Refusals};
pub(crate) use platter::Platter;

use crate::chain::Ground;
use crate::chance::{Chance, u64_of, usize_of};
use crate::invariants::must;
use content::{Content, offset_of};
use raftd::codec::crc::crc32;
use raftd::wal::{Disk, DiskFile, Region};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// The block at the end of a snapshot's file.
const SNAPSHOT_END: usize = 32;

/// A change of a directory that no sync of it covered.
#[derive(Clone, Debug)]
enum Renaming {
    Create(String, usize),
    Remove(String),
    Rename(String, String),
}

#[derive(Debug)]
struct State {
    /// By number; a removed file stays for those who have it open.
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renamings: Vec<Renaming>,
    chance: Chance,
    platter: Platter,
    /// The snapshot in force that was looked at.
    snapshot: [u64; 4],
    /// What damage replaced, by file: where, and what was right.
    rotten: BTreeMap<usize, Vec<(usize, Vec<u8>)>>,
    /// A snapshot was damaged at some time.
    snapshot_rotted: bool,
    /// Of failures and damage, so that they leave the fate of other data as it was.
    faults: Chance,
    /// Changes until the power is gone.
    fuse: Option<u64>,
    blown: bool,
    /// The next operation of the kind fails.
    fails: Option<Failure>,
    /// What failed since the machine started; a read only if nothing else did.
    failed: Option<Failure>,
    /// The file system takes no more changes until it is mounted again.
    frozen: bool,
    full: bool,
    refusals: Refusals,
}

/// The disk of one machine. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(crate) fn new(chance: Chance, ground: Ground) -> SimDisk {
        let faults = chance.clone().split();
        SimDisk(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamings: Vec::new(),
            chance,
            platter: Platter::new(ground),
            snapshot: [0; 4],
            rotten: BTreeMap::new(),
            snapshot_rotted: false,
            faults,
            fuse: None,
            blown: false,
            fails: None,
            failed: None,
            frozen: false,
            full: false,
            refusals: Refusals::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding a disk")
    }

    /// Looks at what the platters hold.
    pub(crate) fn platter<T>(&self, look: impl FnOnce(&Platter) -> T) -> T {
        look(&self.state().platter)
    }

    /// Cuts the power after so many more changes.
    pub(crate) fn light_fuse(&self, changes: u64) {
        self.state().fuse = Some(changes);
    }

    pub(crate) fn has_fuse(&self) -> bool {
        self.state().fuse.is_some()
    }

    /// Whether the fuse has blown: the machine is without power and does not know it yet.
    pub(crate) fn is_blown(&self) -> bool {
        self.state().blown
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.state().full
    }

    /// The size of the snapshot in force; 0: there is none. Bytes.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.state().snapshot[2]
    }

    /// How many segments there are, spares and half-made ones too.
    pub(crate) fn segments(&self) -> usize {
        let state = self.state();
        state.names.keys().filter(|name| matches!(Role::of(name), Role::Segment(_))).count()
    }

    /// Snapshots, in force or not, that are whole.
    pub(crate) fn snapshots(&self) -> usize {
        let state = self.state();
        state.names.keys().filter(|name| name.ends_with(".snap")).count()
    }

    /// Whether the snapshot in force was damaged.
    pub(crate) fn snapshot_is_rotten(&self) -> bool {
        let state = self.state();
        state.snapshot_in_force().is_some_and(|file| state.is_rotten(file))
    }

    /// Whether a header page of a segment is not what it was.
    pub(crate) fn header_is_rotten(&self) -> bool {
        self.state().is_header_rotten()
    }

    /// Whether damage to the log is still there.
    pub(crate) fn log_is_rotten(&self) -> bool {
        self.state().is_log_rotten()
    }

    /// Whether a snapshot was damaged, and another one is in force.
    pub(crate) fn snapshot_was_replaced(&self) -> bool {
        let damaged = self.state().snapshot_rotted;
        damaged && !self.snapshot_is_rotten()
    }

    /// Nothing is planned to go wrong any more.
    pub(crate) fn forgive_future(&self) {
        let mut state = self.state();
        state.fuse = None;
        state.fails = None;
    }

    /// The process ended or the power went and is back: no fuse, nothing that fails.
    pub(crate) fn forgive(&self) {
        let mut state = self.state();
        state.fuse = None;
        state.blown = false;
        state.fails = None;
        state.failed = None;
    }

    /// The power goes.
    pub(crate) fn lose_power(&self, tearing: Tearing) -> Losses {
        let mut state = self.state();
        state.frozen = false;
        let mut losses = state.lose_names();
        let State { files, names, chance, .. } = &mut *state;
        for file in names.values() {
            let some = files[*file].lose_power(chance, tearing);
            losses.lost += some.lost;
            losses.kept += some.kept;
            losses.torn += some.torn;
        }
        losses
    }

    /// A node has opened the disk: from now on what is there is what the platters tell.
    pub(crate) fn read_platters(&self, bridge: bool) {
        let mut state = self.state();
        let State { files, names, platter, .. } = &mut *state;
        platter.forget_log();
        platter.bridges = bridge;
        for (name, file) in names.iter() {
            match Role::of(name) {
                Role::Segment(segment) => platter.see_segment(segment, &files[*file]),
                Role::HardState(copy) => platter.see_hard_state(copy, &files[*file]),
                Role::Draft | Role::Part | Role::Other => {}
            }
        }
    }

    /// A disk with the same content, for an experiment.
    pub(crate) fn copy(&self) -> SimDisk {
        let state = self.state();
        let ground = state.platter.ground().clone();
        let copy = SimDisk::new(state.chance.clone(), ground);
        {
            let mut other = copy.state();
            for (name, file) in &state.names {
                let number = other.files.len();
                other.files.push(state.files[*file].copy());
                other.names.insert(name.clone(), number);
                let rotten = state.rotten.get(file).cloned();
                other.rotten.extend(rotten.map(|rotten| (number, rotten)));
                other.durable_names.insert(name.clone(), number);
            }
        }
        copy
    }
}

/// What a file is for, by its name.
enum Role {
    HardState(usize),
    Segment(usize),
    /// A snapshot that is being made.
    Draft,
    /// A snapshot that is being received.
    Part,
    Other,
}

impl Role {
    fn of(name: &str) -> Role {
        let digits = name.strip_prefix("log/").and_then(|rest| rest.strip_suffix(".seg"));
        match (name, digits.and_then(|digits| digits.parse().ok())) {
            ("hs.0", _) => Role::HardState(0),
            ("hs.1", _) => Role::HardState(1),
            (_, Some(segment)) => Role::Segment(segment),
            (_, None) if name.starts_with("snap/") && name.ends_with(".tmp") => Role::Draft,
            (_, None) if name.starts_with("snap/") && name.ends_with(".part") => Role::Part,
            (_, None) => Role::Other,
        }
    }
}

impl State {
    /// The snapshot that the hard state names is on the platters, name and all: it stands for
    /// entries that the log may lose.
    fn look_at_snapshot(&mut self) {
        let snapshot = self.platter.twice_kept().snapshot;
        if std::mem::replace(&mut self.snapshot, snapshot) == snapshot || snapshot == [0; 4] {
            return;
        }
        let [_, _, bytes, crc] = snapshot;
        let name = name_of(snapshot);
        let file = self.durable_names.get(&name);
        if file.is_some_and(|file| self.is_rotten(*file)) {
            return;
        }
        // Its end says the checksum of all before it.
        let before = usize_of(bytes).checked_sub(SNAPSHOT_END);
        let found = file.zip(before).map(|(file, before)| {
            let mut held = Vec::new();
            self.files[*file].read_platter(0, before, &mut held);
            u64::from(crc32(&[&held]))
        });
        must!(found == Some(crc), "SnapshotDurable", "{name} is in force and not on the platters");
    }

    /// The file of the snapshot that was put in force last.
    fn snapshot_in_force(&self) -> Option<usize> {
        self.durable_names.get(&name_of(self.platter.twice_kept().snapshot)).copied()
    }

    /// A change is about to be made.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => self.blown = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.blown {
            Err(io::Error::other("the power is gone"))
        } else if self.frozen {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        } else {
            Ok(())
        }
    }

    fn rename_names(names: &mut BTreeMap<String, usize>, renaming: &Renaming) {
        match renaming {
            Renaming::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            Renaming::Remove(name) => {
                names.remove(name);
            }
            Renaming::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    /// Each change of a directory that no sync covered is kept or lost: as a journal keeps them,
    /// the first so many, or any of them.
    fn lose_names(&mut self) -> Losses {
        let renamings = std::mem::take(&mut self.renamings);
        let ordered = self.chance.one_in(2);
        let keep = self.chance.below(u64_of(renamings.len()) + 1);
        let mut losses = Losses::default();
        for (nth, renaming) in renamings.iter().enumerate() {
            let kept = if ordered { u64_of(nth) < keep } else { self.chance.one_in(2) };
            if kept {
                State::rename_names(&mut self.durable_names, renaming);
            } else {
                losses.names += 1;
            }
        }
        self.names = self.durable_names.clone();
        losses
    }
}

/// The file of a snapshot: its index, term, bytes and checksum.
fn name_of([index, term, bytes, crc]: [u64; 4]) -> String {
    format!("snap/{index:020}-{term:020}-{bytes}-{crc:08x}.snap")
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Disk for SimDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|name| folder_of(name) == folder);
        Ok(inside.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
    }

    fn create_directory(&self, _name: &str) -> io::Result<()> {
        self.state().change()
    }

    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.change()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // A name needs room in its directory, which may be there.
        if state.full && state.faults.one_in(2) {
            return Err(state.refuse(&Role::of(name)));
        }
        let file = state.files.len();
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), file);
        state.renamings.push(Renaming::Create(name.to_owned(), file));
        Ok(Arc::new(SimFile { disk: self.clone(), file, role: Role::of(name) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file, role: Role::of(name) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        let needed = match Role::of(name) {
            Role::Segment(segment) => state.platter.needs_segment(segment),
            Role::HardState(_) | Role::Draft | Role::Part => false,
            Role::Other => name == name_of(state.platter.newest().snapshot),
        };
        must!(!needed, "NeededStays", "{name} is removed");
        state.renamings.push(Renaming::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.renamings.push(Renaming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }

    fn sync_directory(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        if !state.renamings.is_empty()
            && let Err(error) = state.try_to(Failure::Directory)
        {
            state.frozen = true;
            return Err(error);
        }
        let (synced, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.renamings).into_iter().partition(|renaming| match renaming {
                Renaming::Create(name, _) | Renaming::Remove(name) | Renaming::Rename(name, _) => {
                    folder_of(name) == folder
                }
            });
        state.renamings = rest;
        for renaming in &synced {
            State::rename_names(&mut state.durable_names, renaming);
        }
        Ok(())
    }
}

/// An open file.
struct SimFile {
    disk: SimDisk,
    file: usize,
    role: Role,
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.change();
        let offset = offset_of(offset);
        if result.is_err() {
            // The write during which the power goes may have reached the cache of the device.
            if state.blown && state.fuse.take().is_some() && state.chance.one_in(2) {
                state.files[self.file].write(offset, bytes);
            }
            return result;
        }
        if let Err(error) = state.try_to(Failure::Write) {
            state.write_some_pages(self.file, offset, bytes);
            return Err(error);
        }
        let grows = offset + bytes.len() > state.files[self.file].len();
        if state.full && grows {
            state.write_some_pages(self.file, offset, bytes);
            return Err(state.refuse(&self.role));
        }
        state.files[self.file].write(offset, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        let state = &mut *state;
        if !state.files[self.file].is_dirty() {
            return Ok(());
        }
        if let Err(error) = state.try_to(Failure::Sync) {
            state.files[self.file].forget_dirty();
            return Err(error);
        }
        let content = &mut state.files[self.file];
        content.sync();
        match self.role {
            Role::HardState(copy) => {
                state.platter.see_hard_state(copy, content);
                state.look_at_snapshot();
            }
            Role::Segment(segment) => state.platter.see_segment(segment, content),
            Role::Draft | Role::Part | Role::Other => {}
        }
        Ok(())
    }

    fn read_durable(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.disk.state();
        state.try_to(Failure::Read)?;
        Ok(state.files[self.file].read_medium(offset_of(offset), len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64_of(self.disk.state().files[self.file].len()))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        if state.full {
            return Err(state.refuse(&self.role));
        }
        state.files[self.file].allocate(offset_of(len));
        Ok(())
    }

    fn map(&self) -> io::Result<Box<dyn Region>> {
        Ok(Box::new(SimRegion { disk: self.disk.clone(), file: self.file }))
    }
}

struct SimRegion {
    disk: SimDisk,
    file: usize,
}

impl Region for SimRegion {
    fn copy_to(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        self.disk.state().files[self.file].read_cached(offset_of(offset), len, out);
    }
}
