//! The copy of the package in which bugs are planted. The package itself is never touched.

use super::list::{LEFT_OUT, ListError, Mutant};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a build of the package reads.
const PARTS: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "README.md", "protocol.md", "src", "tests", "bench", "scripts"];

/// What a copy is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum For {
    /// The simulator and the directed tests.
    QuickTests,
    /// The tests of clusters, with the programs that those start.
    Clusters,
}

pub(crate) struct Tree {
    root: PathBuf,
}

/// Files without the bug that is planted in them.
pub(crate) struct Sound(BTreeMap<String, String>);

impl Tree {
    /// Makes the copy equal to the package. Only what differs is written, so that only that is
    /// built anew.
    pub(crate) fn copy(package: &Path, name: &str, made_for: For) -> io::Result<Tree> {
        let root = package.join("target/mutants").join(name);
        fs::create_dir_all(&root)?;
        for part in PARTS {
            copy(&package.join(part), &root.join(part))?;
        }
        // With a bug planted, everything that these name is built and linked anew.
        let (manifest, tests) = ("Cargo.toml", "tests/main.rs");
        let text = fs::read_to_string(package.join(manifest))?;
        fs::write(root.join(manifest), lean_manifest(&text, made_for))?;
        if made_for == For::QuickTests {
            fs::write(root.join(tests), lean_tests(&fs::read_to_string(package.join(tests))?))?;
        }
        Ok(Tree { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts other sources in their places.
    pub(crate) fn write(&self, files: &BTreeMap<String, String>) -> io::Result<()> {
        files.iter().try_for_each(|(file, text)| {
            let path = self.root.join(file);
            let same = fs::read_to_string(&path).is_ok_and(|before| before == *text);
            if same { Ok(()) } else { fs::write(path, text) }
        })
    }

    /// Plants a bug. The package may have moved on since it was copied.
    pub(crate) fn plant(&self, mutant: &Mutant) -> Result<Sound, String> {
        let mut sound = BTreeMap::new();
        let changed = changed_files(&self.root, mutant).map_err(|error| error.to_string())?;
        for (file, text) in changed {
            let path = self.root.join(&file);
            let failed = |why| format!("{file}: {why}");
            let before = fs::read_to_string(&path).map_err(failed)?;
            fs::write(path, text).map_err(failed)?;
            sound.insert(file, before);
        }
        Ok(Sound(sound))
    }

    /// Takes a bug out again.
    pub(crate) fn restore(&self, Sound(files): Sound) -> io::Result<()> {
        files.iter().try_for_each(|(file, text)| fs::write(self.root.join(file), text))
    }
}

/// What a bug must not be refused for: what it makes is found by running it.
const LINTS: &str = "
[lints.rust]
arithmetic_overflow = \"warn\"
overflowing_literals = \"warn\"
unconditional_panic = \"warn\"
";

/// The manifest without benches, lints and this runner. Without the programs too, if nothing starts
/// them, and without the features that only they need, so that all tests share one build of the
/// library.
fn lean_manifest(manifest: &str, made_for: For) -> String {
    let tables = manifest.split("\n[").enumerate().filter(|(_, table)| {
        let unused = made_for == For::QuickTests && table.starts_with("[bin]]");
        let program = unused || table.starts_with("[bench]]");
        !program && !table.starts_with("lints.") && !table.contains("name = \"mutants\"")
    });
    let tables = tables.map(|(nth, table)| if nth == 0 { "" } else { "\n[" }.to_owned() + table);
    let tables = tables.collect::<String>() + LINTS;
    tables.replace("required-features = [\"ctl\"]\n", "")
}

/// The directed tests: what has a name and is quick.
fn lean_tests(main: &str) -> String {
    let stays = |line: &&str| !LEFT_OUT.iter().any(|name| *line == format!("mod {name};"));
    main.lines().filter(stays).map(|line| format!("{line}\n")).collect()
}

/// The files that a bug changes, as they are with it.
pub(crate) fn changed_files(
    package: &Path,
    mutant: &Mutant,
) -> Result<BTreeMap<String, String>, ListError> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for edit in &mutant.edits {
        let text = match files.remove(&edit.file) {
            Some(text) => text,
            None => fs::read_to_string(package.join(&edit.file)).map_err(|why| ListError {
                line: edit.line,
                why: format!("{}: {why}", edit.file),
            })?,
        };
        let changed = edit.apply(&text)?;
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
