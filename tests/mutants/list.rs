//! The list of planted bugs: its format, and how a block is applied to a source.
//!
//! ```text
//! # a comment, outside of blocks
//! name: what is wrong, in a few words
//! file: src/raft/election.rs
//! find: text that occurs exactly once in the file
//! replace: what stands there instead; nothing, to take it out
//! caught by: sim, or a test's name
//! ```
//!
//! A key stands at the start of its line. A value is the rest of that line and all lines up to the
//! next key of the block, without empty lines around it and without a fence of "```". Line breaks
//! in `find` match any line break with any indentation and any empty lines: so a block may be
//! indented as it likes. Everything within a line counts. `file`, `find` and `replace` may be
//! repeated for a bug that needs several edits; a later `find` may leave out `file`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Component, Path};

/// Modules of the directed tests that are not run for planted bugs: clusters of processes,
/// documents and the house rules notice little of what a bug is, and take long.
pub(crate) const LEFT_OUT: [&str; 5] = ["cluster", "docs", "history", "mutants", "tidy"];

/// A planted bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) edits: Vec<Edit>,
    /// Who is expected to notice. Who is named here is asked first.
    pub(crate) caught_by: String,
}

/// One replacement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edit {
    pub(crate) file: String,
    find: Vec<String>,
    replace: String,
    /// Where `find:` stands in the list.
    line: usize,
}

impl Hash for Edit {
    /// Of what it does, wherever it stands.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.file, &self.find, &self.replace).hash(hasher);
    }
}

/// What is wrong with the list, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ListError {
    pub(crate) line: usize,
    pub(crate) why: String,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

fn error<T>(line: usize, why: impl Into<String>) -> Result<T, ListError> {
    Err(ListError { line, why: why.into() })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Name,
    File,
    Find,
    Replace,
    CaughtBy,
}

impl Key {
    const ALL: [(&str, Key); 5] = [
        ("name:", Key::Name),
        ("file:", Key::File),
        ("find:", Key::Find),
        ("replace:", Key::Replace),
        ("caught by:", Key::CaughtBy),
    ];

    /// The key at the start of a line, and the rest of the line.
    fn of(line: &str) -> Option<(Key, &str)> {
        Key::ALL.into_iter().find_map(|(text, key)| {
            let start = line.get(..text.len())?;
            start.eq_ignore_ascii_case(text).then(|| (key, &line[text.len()..]))
        })
    }

    /// What may end this key's value: only what may come next, for the value may be source text.
    fn ends_with(self, next: Key, after_empty_line: bool) -> bool {
        match self {
            Key::Name => next == Key::File,
            Key::File => next == Key::Find,
            Key::Find => next == Key::Replace,
            Key::Replace => match next {
                Key::CaughtBy | Key::File | Key::Find => true,
                Key::Name => after_empty_line,
                Key::Replace => false,
            },
            Key::CaughtBy => next == Key::Name,
        }
    }
}

/// A key with its value.
struct Field<'a> {
    line: usize,
    key: Key,
    value: Vec<&'a str>,
}

impl Field<'_> {
    /// Whether a line belongs to a value that anything may follow: the first one does, and an
    /// indented one.
    fn goes_on(&self, line: &str) -> bool {
        let is_first = self.value.iter().all(|line| line.trim().is_empty());
        (is_first && !separates(line)) || line.starts_with([' ', '\t'])
    }
}

/// Whether a line may stand between blocks: empty, a rule, a comment.
fn separates(line: &str) -> bool {
    line.starts_with('#') || line.trim().chars().all(|it| it == '-' || it == '=')
}

/// Reads a list. Blocks need different names.
pub(crate) fn parse(text: &str) -> Result<Vec<Mutant>, ListError> {
    let mut mutants: Vec<Mutant> = Vec::new();
    let mut file = String::new();
    for field in fields(text)? {
        let Field { line, key, value } = field;
        if key == Key::Name {
            let name = value.join(" ").trim().to_owned();
            if name.is_empty() || mutants.iter().any(|mutant| mutant.name == name) {
                return error(line, format!("another name than `{name}` is needed"));
            }
            mutants.push(Mutant { name, edits: Vec::new(), caught_by: String::new() });
            file.clear();
            continue;
        }
        let mutant = mutants.last_mut().expect("a block begins with `name:`");
        match key {
            Key::Name => {}
            Key::File => {
                file = value.join(" ").trim().to_owned();
                let named = |part: Component<'_>| matches!(part, Component::Normal(_));
                if file.is_empty() || !Path::new(&file).components().all(named) {
                    return error(line, format!("`{file}` is no path below the package"));
                }
            }
            Key::Find => {
                let find: Vec<String> = value.iter().map(|line| line.trim().to_owned()).collect();
                let find: Vec<String> = find.into_iter().filter(|it| !it.is_empty()).collect();
                if find.is_empty() || file.is_empty() {
                    return error(line, "`find:` needs a text, and a `file:` before it");
                }
                let file = file.clone();
                mutant.edits.push(Edit { file, find, replace: String::new(), line });
            }
            Key::Replace => {
                let edit = mutant.edits.last_mut().expect("`replace:` follows `find:`");
                edit.replace = value.join("\n").trim().to_owned();
            }
            Key::CaughtBy => mutant.caught_by = value.join(" ").trim().to_owned(),
        }
    }
    match mutants.iter().find(|mutant| mutant.edits.is_empty()) {
        Some(mutant) => error(1, format!("`{}` changes nothing", mutant.name)),
        None => Ok(mutants),
    }
}

/// Cuts the text into fields whose order is that of a block.
fn fields(text: &str) -> Result<Vec<Field<'_>>, ListError> {
    let mut fields: Vec<Field<'_>> = Vec::new();
    let mut after_empty_line = true;
    for (at, line) in text.lines().enumerate() {
        let current = fields.last_mut();
        let before = current.as_ref().map(|field| field.key);
        match Key::of(line) {
            Some((key, _)) if before.is_none() && key != Key::Name => {
                return error(at + 1, "a block begins with `name:`");
            }
            Some((key, rest)) if before.is_none_or(|it| it.ends_with(key, after_empty_line)) => {
                fields.push(Field { line: at + 1, key, value: vec![rest] });
            }
            Some(_) | None => match current {
                Some(field) if field.key != Key::CaughtBy || field.goes_on(line) => {
                    field.value.push(line);
                }
                Some(_) | None if separates(line) => {}
                Some(_) | None => {
                    return error(at + 1, format!("`name:` should stand here, not `{line}`"));
                }
            },
        }
        after_empty_line = line.trim().is_empty();
    }
    if let Some(Field { line, key, .. }) = fields.last()
        && matches!(key, Key::Name | Key::File | Key::Find)
    {
        return error(*line, "the last block ends early");
    }
    for field in &mut fields {
        unwrap_value(&mut field.value);
    }
    Ok(fields)
}

/// Takes off empty lines around a value, and a fence.
fn unwrap_value(value: &mut Vec<&str>) {
    let is_empty = |line: &&str| line.trim().is_empty();
    let is_fence = |line: &&str| line.trim_start().starts_with("```");
    for outer in [true, false] {
        while value.first().is_some_and(is_empty) {
            value.remove(0);
        }
        while value.last().is_some_and(is_empty) {
            value.pop();
        }
        let fenced = value.len() > 1 && value.first().is_some_and(is_fence);
        if outer && fenced && value.last().is_some_and(is_fence) {
            value.remove(0);
            value.pop();
        }
    }
}

impl Edit {
    /// The source with the bug in it.
    pub(crate) fn apply(&self, source: &str) -> Result<String, ListError> {
        let (start, end) = self.place(source)?;
        Ok([&source[..start], self.replacement(), &source[end..]].concat())
    }

    /// What stands there with the bug.
    pub(crate) fn replacement(&self) -> &str {
        &self.replace
    }

    /// Where the bug comes: from a byte to another.
    pub(crate) fn place(&self, source: &str) -> Result<(usize, usize), ListError> {
        let places = self.places(source);
        let lines = |at: &usize| (source[..*at].matches('\n').count() + 1).to_string();
        match places.as_slice() {
            [place] => Ok(*place),
            [] => error(self.line, format!("not found in {}: {}", self.file, self.nearest(source))),
            many => {
                let at: Vec<String> = many.iter().map(|(start, _)| lines(start)).collect();
                let (count, at) = (many.len(), at.join(", "));
                error(self.line, format!("found {count} times in {}: lines {at}", self.file))
            }
        }
    }

    /// Where it stands.
    fn places(&self, source: &str) -> Vec<(usize, usize)> {
        let starts = source.match_indices(&self.find[0]).map(|(start, _)| start);
        starts.filter_map(|start| Some((start, self.matched(source, start).ok()?))).collect()
    }

    /// Where a match that begins at `start` ends, or how many lines of it match.
    fn matched(&self, source: &str, start: usize) -> Result<usize, usize> {
        let mut at = start + self.find[0].len();
        for (nth, line) in self.find.iter().enumerate().skip(1) {
            let rest = &source[at..];
            let blank = rest.len() - rest.trim_start().len();
            if !rest[..blank].contains('\n') || !rest[blank..].starts_with(line.as_str()) {
                return Err(nth);
            }
            at += blank + line.len();
        }
        Ok(at)
    }

    /// How far the best attempt came.
    fn nearest(&self, source: &str) -> String {
        let starts = source.match_indices(&self.find[0]).map(|(start, _)| start);
        match starts.filter_map(|start| self.matched(source, start).err()).max() {
            Some(nth) => {
                format!("behind what is found, this does not follow: `{}`", self.find[nth])
            }
            None => format!("there is no `{}`", self.find[0]),
        }
    }
}
