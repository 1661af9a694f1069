//! A disk that loses, tears and reorders what was not synced.

use raftd::wal::{Disk, DiskFile, Region};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Content {
    /// What readers see.
    cache: Vec<u8>,
    /// What a power loss leaves for certain.
    durable: Vec<u8>,
    /// Pages written since the last sync.
    dirty: Vec<usize>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, Arc<Mutex<Content>>>,
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    chance: u64,
}

#[derive(Debug)]
pub(crate) struct SimDisk(Mutex<State>);

fn draw(chance: &mut u64) -> u64 {
    *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *chance;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> SimDisk {
        SimDisk(Mutex::new(State { chance: seed, ..State::default() }))
    }

    pub(crate) fn lose_power(&self) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        // Un-synced names: each lost or kept.
        let mut names = state.durable_names.clone();
        for (name, content) in &state.names {
            if !names.contains_key(name) && draw(&mut state.chance).is_multiple_of(2) {
                names.insert(name.clone(), content.clone());
            }
        }
        for (name, _) in state.durable_names.clone() {
            if !state.names.contains_key(&name) && draw(&mut state.chance).is_multiple_of(2) {
                names.remove(&name);
            }
        }
        for content in names.values() {
            let mut content = content.lock().unwrap();
            let content = &mut *content;
            let len = content.cache.len();
            if content.durable.len() < len {
                content.durable.resize(len, 0);
            }
            for page in std::mem::take(&mut content.dirty) {
                let (from, to) = (page * PAGE, ((page + 1) * PAGE).min(len));
                match draw(&mut state.chance) % 3 {
                    0 => {}
                    1 => content.durable[from..to].copy_from_slice(&content.cache[from..to]),
                    _ => {
                        for sector in (from..to).step_by(SECTOR) {
                            let end = (sector + SECTOR).min(to);
                            if draw(&mut state.chance).is_multiple_of(2) {
                                content.durable[sector..end]
                                    .copy_from_slice(&content.cache[sector..end]);
                            }
                        }
                    }
                }
            }
            content.cache = content.durable.clone();
        }
        state.names = names.clone();
        state.durable_names = names;
    }
}

impl Disk for SimDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.0.lock().unwrap();
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let names = state.names.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.filter(|rest| !rest.contains('/')).map(str::to_owned).collect())
    }

    fn create_directory(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn create_new(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::new(Mutex::new(Content::default()));
        state.names.insert(name.to_owned(), content.clone());
        Ok(Arc::new(SimFile(content)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock().unwrap();
        let content = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile(content.clone())))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let content = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), content);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }

    fn sync_directory(&self, folder: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        let inside = |name: &String| match name.rsplit_once('/') {
            Some((parent, _)) => parent == folder,
            None => folder.is_empty(),
        };
        state.durable_names.retain(|name, _| !inside(name));
        for (name, content) in &state.names {
            if inside(name) {
                state.durable_names.insert(name.clone(), content.clone());
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile(Arc<Mutex<Content>>);

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let to = from + bytes.len();
        if content.cache.len() < to {
            content.cache.resize(to, 0);
        }
        content.cache[from..to].copy_from_slice(bytes);
        for page in from / PAGE..to.div_ceil(PAGE) {
            if !content.dirty.contains(&page) {
                content.dirty.push(page);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        let content = &mut *content;
        let len = content.cache.len();
        content.durable.resize(len, 0);
        for page in std::mem::take(&mut content.dirty) {
            let (from, to) = (page * PAGE, ((page + 1) * PAGE).min(len));
            content.durable[from..to].copy_from_slice(&content.cache[from..to]);
        }
        Ok(())
    }

    fn read_durable(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.sync()?;
        let content = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap().min(content.durable.len());
        let to = (from + len).min(content.durable.len());
        Ok(content.durable[from..to].to_vec())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.0.lock().unwrap().cache.len()).unwrap())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().cache.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn map(&self) -> io::Result<Box<dyn Region>> {
        Ok(Box::new(SimRegion(self.0.clone())))
    }
}

#[derive(Debug)]
struct SimRegion(Arc<Mutex<Content>>);

impl Region for SimRegion {
    fn copy_to(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        let from = usize::try_from(offset).unwrap();
        let content = self.0.lock().unwrap();
        out.extend_from_slice(&content.cache[from..from + len]);
    }
}
