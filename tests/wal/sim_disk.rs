//! A disk in memory that behaves as badly as a real one may.
//!
//! What is written stays in a cache until it is synced. When the power goes, each dirty page is on
//! the medium in its old form, its newest, or one between, sometimes sector by sector; each
//! creation, removal and rename that was not synced has happened or not. Nothing here is random but
//! by the seed.

use raftd::wal::{Disk, DiskFile, Region};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// With a chance of `numerator` in 100.
    pub(crate) fn percent(&mut self, numerator: u64) -> bool {
        self.below(100) < numerator
    }

    /// Below `bound`.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(u64::try_from(bound).unwrap())).unwrap()
    }
}

/// Every file by name, as it lies on the medium.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    rng: Rng,
    files: Vec<Inode>,
    /// As programs see them.
    names: BTreeMap<String, usize>,
    /// As a power loss leaves them.
    durable_names: BTreeMap<String, usize>,
    /// What stands between the two, in order.
    pending: Vec<Change>,
    /// Operations until the power goes.
    fuse: Option<u64>,
    dead: bool,
    /// Syncs until one fails.
    bad_sync: Option<u64>,
    /// Files that cannot be read.
    unreadable: BTreeSet<usize>,
    /// Bytes that can still be allocated.
    space: Option<u64>,
    /// Writes that found none.
    writes_refused: u64,
    writes: u64,
}

enum Change {
    Create(String, usize),
    Remove(String),
    Rename(String, String),
}

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    cache: Vec<u8>,
    /// Every version of a page since it was last durable.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> SimDisk {
        SimDisk::from_image(&Image::new(), seed)
    }

    /// A disk that holds these files, all durable.
    pub(crate) fn from_image(image: &Image, seed: u64) -> SimDisk {
        let mut state = State {
            rng: Rng(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            fuse: None,
            dead: false,
            bad_sync: None,
            unreadable: BTreeSet::new(),
            space: None,
            writes_refused: 0,
            writes: 0,
        };
        for (name, bytes) in image {
            let inode = Inode { durable: bytes.clone(), cache: bytes.clone(), ..Inode::default() };
            state.names.insert(name.clone(), state.files.len());
            state.files.push(inode);
        }
        state.durable_names = state.names.clone();
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// The files as programs see them.
    pub(crate) fn image(&self) -> Image {
        let state = self.state();
        let files = state.names.iter();
        files.map(|(name, &file)| (name.clone(), state.files[file].cache.clone())).collect()
    }

    /// The power goes during the operation after `operations` more of them.
    pub(crate) fn light_fuse(&self, operations: u64) {
        self.state().fuse = Some(operations);
    }

    /// What the next power loss leaves depends on this.
    pub(crate) fn set_seed(&self, seed: u64) {
        self.state().rng = Rng(seed);
    }

    /// The power stays.
    pub(crate) fn put_out_fuse(&self) {
        self.state().fuse = None;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The sync after `syncs` more of them fails, once, as ext4's do: what was to be synced stays
    /// readable and is not on the medium, and the next sync succeeds.
    pub(crate) fn fail_sync_after(&self, syncs: u64) {
        self.state().bad_sync = Some(syncs);
    }

    /// A bit of the file at `name` flips on the medium, where nobody looks at it but those who read
    /// from there.
    pub(crate) fn rot(&self, name: &str) {
        let mut state = self.state();
        let file = state.file(name).unwrap();
        let bytes = &mut state.files[file].durable;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    }

    /// Reads of the file at `name` fail from now on. Another one of that name can be read.
    pub(crate) fn make_unreadable(&self, name: &str) {
        let mut state = self.state();
        let file = state.file(name).unwrap();
        state.unreadable.insert(file);
    }

    /// How much can still be allocated; `None`: no end.
    pub(crate) fn set_space(&self, space: Option<u64>) {
        self.state().space = space;
    }

    /// How many writes found no space.
    pub(crate) fn writes_refused(&self) -> u64 {
        self.state().writes_refused
    }

    /// How many writes, creations, removals and renames there were.
    pub(crate) fn writes(&self) -> u64 {
        self.state().writes
    }

    /// The process that used it was killed, at the fuse if there was one: all it wrote can be read,
    /// durable or not.
    pub(crate) fn process_ends(&self) {
        let mut state = self.state();
        state.fuse = None;
        state.dead = false;
    }

    /// The power goes, if it has not, and comes back.
    pub(crate) fn power_loss(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        let ordered = state.rng.percent(50);
        let kept = state.rng.index(state.pending.len() + 1);
        for (number, change) in std::mem::take(&mut state.pending).into_iter().enumerate() {
            let keep = if ordered { number < kept } else { state.rng.percent(50) };
            if keep {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for file in &mut state.files {
            file.power_loss(&mut state.rng);
        }
        state.fuse = None;
        state.dead = false;
    }
}

impl State {
    /// Counts an operation. `Err` once the power is gone; `Ok(true)` when it goes during this one.
    fn operation(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(io::Error::other("the power is gone"));
        }
        self.dead = self.fuse == Some(0);
        self.fuse = self.fuse.map(|left| left.saturating_sub(1));
        Ok(self.dead)
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.writes += 1;
        let last = self.operation()?;
        change.apply(&mut self.names);
        self.pending.push(change);
        dead_if(last)
    }

    /// A file that grows takes space.
    fn take_space_for(&mut self, file: usize, end: usize) -> io::Result<()> {
        let grown = end.saturating_sub(self.files[file].cache.len());
        let Some(space) = self.space else { return Ok(()) };
        let left = space.checked_sub(u64::try_from(grown).unwrap());
        self.writes_refused += u64::from(left.is_none());
        self.space = Some(left.ok_or_else(|| io::Error::from_raw_os_error(28))?);
        Ok(())
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, name.to_owned());
        self.names.get(name).copied().ok_or_else(missing)
    }
}

fn dead_if(last: bool) -> io::Result<()> {
    if last { Err(io::Error::other("the power went")) } else { Ok(()) }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            Change::Remove(name) => {
                names.remove(name);
            }
            Change::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    /// The directory it is made durable with.
    fn directory(&self) -> &str {
        let (Change::Create(name, _) | Change::Remove(name) | Change::Rename(name, _)) = self;
        name.rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let version = page_of(&self.cache, page);
            self.dirty.entry(page).or_default().push(version);
        }
    }

    /// Writes the dirty pages, and only those: what a failed sync called clean is never written.
    fn sync(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for (page, versions) in std::mem::take(&mut self.dirty) {
            let newest = versions.last().expect("a dirty page has a version");
            let from = page * PAGE;
            let until = self.durable.len().min(from + PAGE);
            self.durable[from..until].copy_from_slice(&newest[..until - from]);
        }
    }

    fn power_loss(&mut self, rng: &mut Rng) {
        if self.cache.len() != self.durable.len() && rng.percent(50) {
            self.durable.resize(self.cache.len(), 0);
        }
        for (page, versions) in std::mem::take(&mut self.dirty) {
            let tear = rng.percent(30);
            for sector in 0..PAGE / SECTOR {
                // Of a page that tears, each sector has its own fate.
                if sector == 0 || tear {
                    let all = page * PAGE + sector * SECTOR..(page + 1) * PAGE;
                    self.settle(rng, &versions, page, all);
                }
            }
        }
        self.cache.clone_from(&self.durable);
    }

    /// Puts a random version of a page into part of it, or leaves it as it was.
    fn settle(
        &mut self,
        rng: &mut Rng,
        versions: &[Vec<u8>],
        page: usize,
        range: std::ops::Range<usize>,
    ) {
        let version = match rng.below(3) {
            0 => return,
            1 => versions.last().unwrap(),
            _between => &versions[rng.index(versions.len())],
        };
        for at in range {
            if let Some(byte) = self.durable.get_mut(at) {
                *byte = version[at - page * PAGE];
            }
        }
    }
}

fn page_of(bytes: &[u8], page: usize) -> Vec<u8> {
    let mut version = bytes[page * PAGE..bytes.len().min((page + 1) * PAGE)].to_vec();
    version.resize(PAGE, 0);
    version
}

impl Disk for SimDisk {
    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, name.to_owned()));
        }
        let file = state.files.len();
        state.files.push(Inode::default());
        state.change(Change::Create(name.to_owned(), file))?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().file(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = |name: &String| -> Option<String> {
            let rest = if directory.is_empty() {
                name
            } else {
                name.strip_prefix(directory)?.strip_prefix('/')?
            };
            Some(rest.split('/').next().unwrap_or(rest).to_owned())
        };
        let mut names: Vec<String> = state.names.keys().filter_map(inside).collect();
        names.dedup();
        Ok(names)
    }

    fn create_directory(&self, _name: &str) -> io::Result<()> {
        // A directory is there as soon as a file in it is.
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(name)?;
        state.change(Change::Remove(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(from)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn sync_directory(&self, name: &str) -> io::Result<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.operation()? {
            return dead_if(true);
        }
        let (synced, rest) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|change: &Change| change.directory() == name);
        state.pending = rest;
        let synced: Vec<Change> = synced;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        state.writes += 1;
        let last = state.operation()?;
        let offset = usize::try_from(offset).unwrap();
        state.take_space_for(self.file, offset + bytes.len())?;
        // The power may go when part of the write has reached the cache: whole sectors of it, as
        // a page that is being copied to is locked against writeback.
        let part = (offset + state.rng.index(bytes.len() + 1)) / SECTOR * SECTOR;
        let count = if last { part.saturating_sub(offset) } else { bytes.len() };
        state.files[self.file].write(offset, &bytes[..count]);
        dead_if(last)
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        dead_if(state.operation()?)?;
        let file = &mut state.files[self.file];
        match state.bad_sync {
            Some(0) => {
                state.bad_sync = None;
                file.dirty.clear();
                Err(io::Error::from_raw_os_error(5))
            }
            Some(left) => {
                state.bad_sync = Some(left - 1);
                file.sync();
                Ok(())
            }
            None => {
                file.sync();
                Ok(())
            }
        }
    }

    fn read_durable(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let state = self.disk.state();
        if state.unreadable.contains(&self.file) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let bytes = &state.files[self.file].durable;
        let from = usize::try_from(offset).unwrap().min(bytes.len());
        Ok(bytes[from..bytes.len().min(from + len)].to_vec())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        Ok(u64::try_from(state.files[self.file].cache.len()).unwrap())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        dead_if(state.operation()?)?;
        if let Some(space) = state.space {
            let left = space.checked_sub(len);
            let full = || io::Error::from_raw_os_error(28);
            state.space = Some(left.ok_or_else(full)?);
        }
        let file = &mut state.files[self.file];
        file.cache.resize(usize::try_from(len).unwrap(), 0);
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
        let state = self.disk.state();
        let from = usize::try_from(offset).unwrap();
        out.extend_from_slice(&state.files[self.file].cache[from..from + len]);
    }
}
