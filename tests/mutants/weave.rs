//! Many bugs in one program: a function with bugs in it gets a body for each of them, and a
//! variable of the environment says which one is run. So one build does for hundreds of bugs.
//!
//! ```text
//! fn f(a: A) -> B { … }   becomes   fn f(a: A) -> B { match crate::planted() {
//!                                       17 => { … with bug 17 }
//!                                       _ => { … }
//!                                   } }
//! ```
//!
//! What stands outside of functions, or in one whose bodies must have one type, is planted alone.
//! So is what would be no block any more, and what is no part of the library, which alone knows
//! `planted`.

use super::list::{Edit, Mutant};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The variable that holds the number of the bug that is in force.
pub(crate) const PLANTED: &str = "RAFTD_PLANTED";

const ASKED: &str = "
/// Which planted bug is in force.
#[doc(hidden)]
pub fn planted() -> u32 {
    static PLANTED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(|| {
        std::env::var(\"RAFTD_PLANTED\").ok().and_then(|it| it.parse().ok()).unwrap_or(0)
    })
}
";

/// A function's body: from its brace to behind its other brace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Body {
    start: usize,
    end: usize,
}

/// A function: its file, and its body there.
type Function<'a> = (&'a str, Body);

/// The bodies that a bug changes, as they are with it.
type ChangedBodies<'a> = BTreeMap<Function<'a>, String>;

/// From which byte to which an edit goes.
type Place<'a> = (usize, usize, &'a Edit);

/// A body with a bug in it: the bug's number and name, and the text.
type Variant<'a> = (u32, &'a str, String);

/// Sources with bugs in them that can be told apart by number.
#[derive(Default)]
pub(crate) struct Weave {
    /// By path below the package.
    pub(crate) files: BTreeMap<String, String>,
    numbers: BTreeMap<String, u32>,
    /// In which lines of a woven file the body with a bug lies, and which bug's.
    spans: Vec<(String, (usize, usize), String)>,
}

impl Weave {
    /// The number of a bug that is in here.
    pub(crate) fn number(&self, mutant: &Mutant) -> Option<u32> {
        self.numbers.get(&mutant.name).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The bugs that are in here and have bodies in files that are meant.
    pub(crate) fn within(&self, meant: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
        self.spans.iter().filter(move |(file, ..)| meant(file)).map(|(.., name)| name.clone())
    }

    /// The bug in whose body a line of a woven file is.
    pub(crate) fn at(&self, file: &str, line: usize) -> Option<&String> {
        let here = |(at, (first, last), _): &&(String, (usize, usize), String)| {
            at == file && (*first..=*last).contains(&line)
        };
        self.spans.iter().find(here).map(|(_, _, name)| name)
    }
}

/// Weaves all bugs that can be but those in `left_out`.
pub(crate) fn weave(
    package: &Path,
    mutants: &[Mutant],
    left_out: &BTreeSet<String>,
) -> Result<Weave, String> {
    let mut sources: BTreeMap<&str, (String, Vec<Body>)> = BTreeMap::new();
    for edit in mutants.iter().flat_map(|mutant| &mutant.edits) {
        if !sources.contains_key(edit.file.as_str()) {
            let text = fs::read_to_string(package.join(&edit.file))
                .map_err(|why| format!("{}: {why}", edit.file))?;
            let bodies = bodies(&text);
            sources.insert(&edit.file, (text, bodies));
        }
    }
    let mut weave = Weave::default();
    let mut variants: BTreeMap<Function<'_>, Vec<Variant<'_>>> = BTreeMap::new();
    for (number, mutant) in (1..).zip(mutants) {
        if left_out.contains(&mutant.name) {
            continue;
        }
        let Some(changed) = changed_bodies(mutant, &sources) else { continue };
        let nested = |(file, body): &Function<'_>| {
            variants.keys().any(|(at, other)| {
                at == file && body != other && body.start < other.end && other.start < body.end
            })
        };
        if changed.keys().any(nested) {
            continue;
        }
        weave.numbers.insert(mutant.name.clone(), number);
        for (place, text) in changed {
            variants.entry(place).or_default().push((number, &mutant.name, text));
        }
    }
    for (file, (text, _)) in &sources {
        let here = variants.iter().filter(|((at, _), _)| at == file);
        weave.insert(file, text, here.map(|((_, body), all)| (*body, all.as_slice())));
    }
    let lib = weave.files.entry("src/lib.rs".to_owned());
    let text = fs::read_to_string(package.join("src/lib.rs")).map_err(|why| why.to_string())?;
    lib.or_insert(text).push_str(ASKED);
    Ok(weave)
}

impl Weave {
    /// Writes the bodies of a file, which come in order.
    fn insert<'a>(
        &mut self,
        file: &str,
        text: &str,
        bodies: impl Iterator<Item = (Body, &'a [Variant<'a>])>,
    ) {
        let (mut woven, mut at) = (String::new(), 0);
        for (body, all) in bodies {
            woven.push_str(&text[at..body.start]);
            // A program asks the library.
            let library = if file.starts_with("src/bin/") { "raftd" } else { "crate" };
            woven.push_str(&format!("{{ match {library}::planted() {{\n"));
            for (number, name, changed) in all {
                let first = line_of(&woven);
                woven.push_str(&format!("{number} => {changed}\n"));
                let lines = (first, line_of(&woven) - 1);
                self.spans.push((file.to_owned(), lines, (*name).to_owned()));
            }
            woven.push_str(&format!("_ => {}\n}} }}", &text[body.start..body.end]));
            at = body.end;
        }
        if at > 0 {
            woven.push_str(&text[at..]);
            self.files.insert(file.to_owned(), woven);
        }
    }
}

fn line_of(text: &str) -> usize {
    text.matches('\n').count() + 1
}

/// The bodies that a bug changes, as they are with it; `None` if something else changes as well.
fn changed_bodies<'a>(
    mutant: &'a Mutant,
    sources: &BTreeMap<&str, (String, Vec<Body>)>,
) -> Option<ChangedBodies<'a>> {
    let mut edits: BTreeMap<Function<'_>, Vec<Place<'_>>> = BTreeMap::new();
    for edit in &mutant.edits {
        let (text, bodies) = &sources[edit.file.as_str()];
        // One that finds its place only where an earlier one has been.
        let Ok((start, end)) = edit.place(text) else { return None };
        if !edit.file.starts_with("src/") {
            return None;
        }
        let around = bodies.iter().filter(|body| body.start < start && end < body.end);
        let body = around.max_by_key(|body| body.start)?;
        edits.entry((&edit.file, *body)).or_default().push((start, end, edit));
    }
    let mut bodies = ChangedBodies::new();
    for ((file, body), mut all) in edits {
        all.sort_by_key(|(start, ..)| *start);
        let (text, _) = &sources[file];
        let (mut changed, mut at) = (String::new(), body.start);
        for (start, end, edit) in all {
            if start < at {
                return None;
            }
            changed.push_str(&text[at..start]);
            changed.push_str(edit.replacement());
            at = end;
        }
        changed.push_str(&text[at..body.end]);
        // A brace too many or too few would change what stands around it, and other bugs with it.
        if length_of_block(&code_of(&changed)) != Some(changed.len()) {
            return None;
        }
        bodies.insert((file, body), changed);
    }
    Some(bodies)
}

/// The bodies of all functions that may have several.
fn bodies(text: &str) -> Vec<Body> {
    let code = code_of(text);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut found = Vec::new();
    for at in 0..code.len().saturating_sub(3) {
        let begins = at == 0 || !is_word(code[at - 1]);
        if !begins || &code[at..at + 3] != b"fn " {
            continue;
        }
        let rest = &code[at..];
        let Some(brace) = rest.iter().position(|byte| matches!(byte, b'{' | b';')) else {
            continue;
        };
        let signature = String::from_utf8_lossy(&rest[..brace]);
        let constant = code[..at].trim_ascii_end().ends_with(b"const");
        // Each body would make a type of its own.
        let opaque = signature.split_once("->").is_some_and(|(_, to)| to.contains("impl "));
        if rest[brace] == b'{'
            && !constant
            && !opaque
            && let Some(length) = length_of_block(&rest[brace..])
        {
            found.push(Body { start: at + brace, end: at + brace + length });
        }
    }
    found
}

/// How long a block in braces is.
fn length_of_block(code: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    code.iter().enumerate().find_map(|(at, byte)| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at + 1)
    })
}

/// The text with blanks for comments and for what stands between quotation marks.
fn code_of(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + length_of_noncode(&bytes[at..]);
        if end == at {
            at += 1;
            continue;
        }
        code[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    code
}

/// How long the comment, string or character is that begins here; 0 if none does.
fn length_of_noncode(rest: &[u8]) -> usize {
    let until = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |found| from + found + end.len())
    };
    match rest {
        [b'/', b'/', ..] => until(b"\n", 2) - 1,
        [b'/', b'*', ..] => until(b"*/", 2),
        [b'r', b'"', ..] => until(b"\"", 2),
        [b'r', b'#', b'"', ..] => until(b"\"#", 3),
        [b'"', ..] => escaped(rest, b'"'),
        [b'\'', b'\\', ..] => escaped(rest, b'\''),
        [b'\'', _, b'\'', ..] => 3,
        // A character of several bytes; else it is a lifetime.
        [b'\'', first, ..] if !first.is_ascii() => until(b"'", 1),
        _ => 0,
    }
}

/// The length of a literal with escapes.
fn escaped(rest: &[u8], mark: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != mark {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
