//! The copy of the package in which bugs are planted. The package itself is never touched.

use super::list::Mutant;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a build of the package reads.
const PARTS: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "README.md", "protocol.md", "src", "tests", "bench", "scripts"];

pub(crate) struct Tree {
    package: PathBuf,
    root: PathBuf,
}

impl Tree {
    /// Makes the copy equal to the package. Only what differs is written, so that only that is
    /// built anew.
    pub(crate) fn copy(package: &Path) -> io::Result<Tree> {
        let root = package.join("target/mutants/tree");
        fs::create_dir_all(&root)?;
        for part in PARTS {
            copy(&package.join(part), &root.join(part))?;
        }
        Ok(Tree { package: package.to_owned(), root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Plants a bug.
    pub(crate) fn plant(&self, mutant: &Mutant) -> Result<(), String> {
        for (file, text) in changed_files(&self.package, mutant)? {
            fs::write(self.root.join(&file), text).map_err(|why| format!("{file}: {why}"))?;
        }
        Ok(())
    }

    /// Takes a bug out again.
    pub(crate) fn restore(&self, mutant: &Mutant) -> io::Result<()> {
        mutant
            .edits
            .iter()
            .try_for_each(|edit| copy(&self.package.join(&edit.file), &self.root.join(&edit.file)))
    }
}

/// The files that a bug changes, as they are with it.
pub(crate) fn changed_files(
    package: &Path,
    mutant: &Mutant,
) -> Result<BTreeMap<String, String>, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for edit in &mutant.edits {
        let text = match files.remove(&edit.file) {
            Some(text) => text,
            None => fs::read_to_string(package.join(&edit.file))
                .map_err(|why| format!("{}: {why}", edit.file))?,
        };
        let changed = edit.apply(&text).map_err(|error| error.to_string())?;
        files.insert(edit.file.clone(), changed);
    }
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        let bytes = fs::read(from)?;
        if fs::read(to).ok().as_ref() != Some(&bytes) {
            fs::write(to, bytes)?;
            // Scripts are run by tests.
            fs::set_permissions(to, fs::metadata(from)?.permissions())?;
        }
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}
