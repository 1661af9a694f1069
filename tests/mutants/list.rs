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
//! `sim` and the directed tests are run for each bug; clusters of real processes are not, unless
//! `caught by` names a test of theirs (`cluster::…`). That reaches what raftd and raftctl are made
//! of, if the bug can be woven (`weave.rs`); not the gateway, whose tests are never run here.
//!
//! A key stands at the start of its line. A value is the rest of that line and all lines up to the
//! next key of the block, without empty lines and comments behind it, and without a fence of "```".
//! Line breaks in `find` match any line break with any indentation and any empty lines: so a block
//! may be indented as it likes; where only the indentation tells places apart, it does count.
//! Everything within a line counts. `file`, `find` and `replace` may be repeated for a bug that
//! needs several edits; a later `find` may leave out `file`. `caught by` may be left out; prose may
//! follow it. A block also begins without an empty line before it, where a `file:` with a path
//! follows its name. A block that is wrong is named, and the others stand.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Component, Path};

/// Modules of the directed tests that are not run for planted bugs: clusters of processes,
/// documents and the house rules notice little of what a bug is, and take long.
pub(crate) const LEFT_OUT: [&str; 5] = ["cluster", "docs", "history", "mutants", "tidy"];

/// Where hardly anything is in a program that is run for planted bugs, beside what has a test in
/// the same file: that such a bug lives says nothing.
const CLUSTERS_ALONE: [&str; 5] =
    ["src/bin/", "src/client/", "src/gateway/", "src/net/", "src/server/"];

/// The tests of clusters.
pub(crate) const CLUSTERS: &str = "cluster::";

/// A planted bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) edits: Vec<Edit>,
    /// Who is expected to notice. Who is named here is asked first.
    pub(crate) caught_by: String,
}

impl Mutant {
    /// Whether all of it is where only clusters of real processes come.
    pub(crate) fn is_for_clusters_alone(&self) -> bool {
        let is_there = |edit: &Edit| CLUSTERS_ALONE.iter().any(|it| edit.file.starts_with(it));
        self.edits.iter().all(is_there)
    }

    /// Whether a test of theirs is expected to notice. It never does where there is no gateway.
    pub(crate) fn names_clusters(&self) -> bool {
        let is_gateway = |edit: &Edit| edit.file.contains("gateway");
        named_test(&self.caught_by).is_some_and(|name| name.starts_with(CLUSTERS))
            && !self.edits.iter().all(is_gateway)
    }
}

/// The test that is named, if one is.
pub(crate) fn named_test(caught_by: &str) -> Option<&str> {
    caught_by.split([' ', ',', ';', '`']).find(|word| word.contains("::"))
}

/// One replacement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edit {
    pub(crate) file: String,
    find: Vec<String>,
    /// The same as it stands in the list, for where the lines alone are found more than once.
    exact: String,
    replace: String,
    /// Where `find:` stands in the list.
    pub(crate) line: usize,
}

impl Hash for Edit {
    /// Of what it does, wherever it stands.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.file, &self.find, &self.exact, &self.replace).hash(hasher);
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
    fn ends_with(self, next: Key) -> bool {
        match self {
            Key::Name => matches!(next, Key::File | Key::CaughtBy),
            Key::File => matches!(next, Key::Find | Key::CaughtBy),
            Key::Find => next == Key::Replace,
            Key::Replace => matches!(next, Key::CaughtBy | Key::File | Key::Find),
            Key::CaughtBy => matches!(next, Key::File | Key::Find),
        }
    }

    /// What should follow this key's value, of what must.
    fn wants(self) -> Option<&'static str> {
        match self {
            Key::Name => Some("file:"),
            Key::File => Some("find:"),
            Key::Find => Some("replace:"),
            Key::Replace | Key::CaughtBy => None,
        }
    }
}

/// A key with its value.
struct Field<'a> {
    line: usize,
    key: Key,
    /// Whether the value begins in the key's own line.
    on_key_line: bool,
    value: Vec<&'a str>,
}

impl<'a> Field<'a> {
    fn new(line: usize, key: Key, rest: &'a str) -> Field<'a> {
        Field { line, key, on_key_line: !rest.trim().is_empty(), value: vec![rest] }
    }
}

impl Field<'_> {
    /// Whether a line belongs to a value that anything may follow: the first one does, and an
    /// indented one.
    fn goes_on(&self, line: &str) -> bool {
        let is_first = self.value.iter().all(|line| line.trim().is_empty());
        (is_first && !separates(line)) || line.starts_with([' ', '\t'])
    }
}

/// Whether a line may stand between blocks: empty, a rule, a comment, which no attribute is.
fn separates(line: &str) -> bool {
    let comment = line.starts_with('#') && !line.starts_with("#[") && !line.starts_with("#!");
    comment || line.trim().chars().all(|it| it == '-' || it == '=')
}

/// A list: the bugs, and what is wrong with the blocks that are none.
#[derive(Default, Debug)]
pub(crate) struct List {
    pub(crate) mutants: Vec<Mutant>,
    pub(crate) bad: Vec<BadBlock>,
}

/// A block that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BadBlock {
    /// Empty if it has none.
    pub(crate) name: String,
    pub(crate) error: ListError,
}

/// The lines of a block.
#[derive(Default)]
struct Block<'a> {
    fields: Vec<Field<'a>>,
    /// Where text follows `caught by:` that may be prose, or the misspelt beginning of a block:
    /// the next key tells.
    doubtful: Option<ListError>,
    /// Then what follows is passed over, up to the next block.
    wrong: Option<ListError>,
}

/// Reads a list. Blocks need different names.
pub(crate) fn parse(text: &str) -> List {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut list = List::default();
    for mut block in blocks(&lines) {
        block.fields.iter_mut().for_each(|field| unwrap_value(field.key, &mut field.value));
        let name = block.fields.first().map(|field| field.joined()).unwrap_or_default();
        match block.read(&name) {
            Ok(mutant) if list.mutants.iter().any(|other| other.name == name) => {
                let why = format!("another name than `{}` is needed", mutant.name);
                let error = ListError { line: block.fields[0].line, why };
                list.bad.push(BadBlock { name, error });
            }
            Ok(mutant) => list.mutants.push(mutant),
            Err(error) => list.bad.push(BadBlock { name, error }),
        }
    }
    list
}

/// Cuts a list into blocks, and those into fields.
fn blocks<'a>(lines: &[&'a str]) -> Vec<Block<'a>> {
    let mut blocks: Vec<Block<'a>> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let key = Key::of(line);
        if let Some((Key::Name, rest)) = key
            && begins(lines, at, blocks.last())
        {
            let fields = vec![Field::new(at + 1, Key::Name, rest)];
            blocks.push(Block { fields, ..Block::default() });
            continue;
        }
        match blocks.last_mut() {
            Some(block) => block.take(at + 1, line, key),
            None if separates(line) => {}
            None => {
                let why = format!("a block begins with `name:`, not with `{line}`");
                let wrong = Some(ListError { line: at + 1, why });
                blocks.push(Block { wrong, ..Block::default() });
            }
        }
    }
    blocks
}

/// Whether the `name:` at a line begins a block, or is source text.
fn begins(lines: &[&str], at: usize, before: Option<&Block<'_>>) -> bool {
    let Some(field) = before.and_then(|block| block.fields.last()) else { return true };
    let after_empty_line = at > 0 && lines[at - 1].trim().is_empty();
    match field.key {
        Key::CaughtBy => true,
        Key::Replace if after_empty_line => true,
        Key::Replace | Key::Name | Key::File | Key::Find => {
            before.is_some_and(|block| block.wrong.is_some()) || introduces(&lines[at + 1..])
        }
    }
}

/// Whether these lines follow the `name:` of a block for sure: at most one more of the name, and a
/// `file:` with a path, or a `find:` that lacks it.
fn introduces(lines: &[&str]) -> bool {
    let mut lines = lines.iter().filter(|line| !separates(line));
    let next = lines.by_ref().take(2).find_map(|line| match Key::of(line) {
        Some((key @ (Key::File | Key::Find), rest)) => Some((key, rest.trim())),
        Some((Key::Name | Key::Replace | Key::CaughtBy, _)) | None => None,
    });
    let path = match next {
        Some((Key::Find, _)) => return true,
        Some((_, "")) => lines.next().map_or("", |line| line.trim()),
        Some((_, path)) => path,
        None => return false,
    };
    path.contains(['/', '.']) && !path.contains([' ', ',', ';', '('])
}

impl<'a> Block<'a> {
    /// The next line of the block.
    fn take(&mut self, number: usize, line: &'a str, key: Option<(Key, &'a str)>) {
        let (None, Some(field)) = (&self.wrong, self.fields.last_mut()) else { return };
        let before = field.key;
        let refused = |wanted: &str| {
            let why = format!("`{wanted}` should stand here, not `{line}`");
            Some(ListError { line: number, why })
        };
        match (key, before) {
            (Some((key, _)), _) if before.ends_with(key) && self.doubtful.is_some() => {
                self.wrong = self.doubtful.take();
            }
            (Some((key, rest)), _) if before.ends_with(key) => {
                self.fields.push(Field::new(number, key, rest));
            }
            (Some(_), Key::Name | Key::File) => {
                self.wrong = refused(before.wants().unwrap_or_default());
            }
            (None | Some(_), Key::CaughtBy) if !field.goes_on(line) => {
                if !separates(line) && self.doubtful.is_none() {
                    self.doubtful = refused("name:");
                }
            }
            (None | Some(_), _) => field.value.push(line),
        }
    }

    fn read(&self, name: &str) -> Result<Mutant, ListError> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let first = self.fields.first().map_or(1, |field| field.line);
        if name.is_empty() {
            return error(first, "`name:` needs a name");
        }
        if let Some(Field { line, key, .. }) = self.fields.last()
            && let Some(wanted) = key.wants()
        {
            return error(*line, format!("`{name}` ends early: `{wanted}` should follow"));
        }
        let (mut edits, mut file) = (Vec::<Edit>::new(), String::new());
        let mut caught_by = String::new();
        for field in &self.fields {
            match field.key {
                Key::Name => {}
                Key::File => file = field.path()?,
                Key::Find => {
                    let find = field.trimmed_lines();
                    if find.is_empty() {
                        return error(field.line, "`find:` needs a text");
                    }
                    let (file, line) = (file.clone(), field.line);
                    let (exact, replace) = (field.exact(), String::new());
                    edits.push(Edit { file, find, exact, replace, line });
                }
                Key::Replace => {
                    let edit = edits.last_mut().expect("`replace:` follows `find:`");
                    edit.replace = field.value.join("\n").trim().to_owned();
                    if edit.find == field.trimmed_lines() {
                        return error(field.line, "`replace:` is what `find:` is");
                    }
                }
                Key::CaughtBy => caught_by = field.joined(),
            }
        }
        if edits.is_empty() {
            return error(first, format!("`{name}` changes nothing"));
        }
        Ok(Mutant { name: name.to_owned(), edits, caught_by })
    }
}

impl Field<'_> {
    /// The value in one line.
    fn joined(&self) -> String {
        let lines = self.value.iter().map(|line| line.trim());
        lines.collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    fn trimmed_lines(&self) -> Vec<String> {
        let lines = self.value.iter().map(|line| line.trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    }

    /// As it stands there; of the key's own line without the space behind the key.
    fn exact(&self) -> String {
        let text = self.value.join("\n");
        if self.on_key_line { text.trim().to_owned() } else { text.trim_end().to_owned() }
    }

    /// A path below the package.
    fn path(&self) -> Result<String, ListError> {
        let file = self.joined();
        let file = file.trim_matches('`').trim_start_matches("./");
        let named = |part: Component<'_>| matches!(part, Component::Normal(_));
        if file.is_empty() || !Path::new(file).components().all(named) {
            return error(self.line, format!("`{file}` is no path below the package"));
        }
        Ok(file.to_owned())
    }
}

/// Takes off what stands around a value: comments and empty lines, and a fence.
fn unwrap_value(key: Key, value: &mut Vec<&str>) {
    match key {
        // One line each: a comment may stand anywhere.
        Key::Name | Key::File => {
            let mut nth = 0;
            value.retain(|line| {
                nth += 1;
                nth == 1 || !separates(line)
            });
        }
        Key::Find | Key::Replace | Key::CaughtBy => {
            while value.len() > 1 && value.last().is_some_and(|line| separates(line)) {
                value.pop();
            }
        }
    }
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
                if let Some(place) = self.exact_place(source, many) {
                    return Ok(place);
                }
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

    /// Which of several places is the only one that is indented as the list has it.
    fn exact_place(&self, source: &str, many: &[(usize, usize)]) -> Option<(usize, usize)> {
        let indented = self.exact.len() - self.exact.trim_start().len();
        let mut hits = source.match_indices(&self.exact).map(|(start, _)| start + indented);
        let (hit, None) = (hits.next()?, hits.next()) else { return None };
        many.iter().find(|(start, _)| *start == hit).copied()
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
