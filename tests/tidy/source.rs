//! Sources as the rules want to see them: text, code without comments and literals, words, paths.

use std::fs;
use std::path::Path;

/// A file of the package.
pub(super) struct Source {
    /// Relative to the package, with `/`.
    pub(super) path: String,
    /// As it stands.
    pub(super) text: String,
    /// With comments and literals blanked; every line where it was.
    pub(super) code: String,
}

/// A word or path, and the line it stands on, counted from 1.
pub(super) struct Found {
    pub(super) line: usize,
    pub(super) text: String,
}

/// A function, by its lines.
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// Every file below `folder` whose name ends in one of `endings`; an empty ending means all.
pub(super) fn read(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), folder, endings, &mut sources);
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

fn collect(folder: &Path, name: &str, endings: &[&str], sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.expect("a folder of the package can be listed");
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("an entry has a type").is_dir() {
            collect(&entry.path(), &path, endings, sources);
        } else if endings.iter().any(|ending| path.ends_with(ending)) {
            // Golden files of formats are not text.
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            let code = if path.ends_with(".rs") { blank(&text) } else { text.clone() };
            sources.push(Source { path, text, code });
        }
    }
}

impl Source {
    /// Every word of the code.
    pub(super) fn words(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for (at, line) in self.code.lines().enumerate() {
            let words = line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty());
            found.extend(words.map(|word| Found { line: at + 1, text: word.to_owned() }));
        }
        found
    }

    /// Every path of two or more names, with the braces of `use` written out.
    pub(super) fn paths(&self) -> Vec<Found> {
        let code: Vec<char> = self.code.chars().collect();
        let mut parser = Paths { code: &code, at: 0, line: 1, found: Vec::new() };
        while parser.at < code.len() {
            let inside = parser.at > 0 && is_word(code[parser.at - 1]);
            if is_word(code[parser.at]) && !inside {
                parser.tree("");
            } else {
                parser.step();
            }
        }
        parser.found.retain(|found| found.text.contains("::"));
        parser.found
    }

    /// Every function that has a body.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let before = self.code[..at].chars().next_back();
            let name: String = self.code[at + 3..].chars().take_while(|c| is_word(*c)).collect();
            if before.is_some_and(is_word) || name.is_empty() {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            if let Some(lines) = body_lines(&self.code[at..]) {
                functions.push(Function { name, line, lines });
            }
        }
        functions
    }
}

/// Lines from a function's `fn` to its closing brace, both counted; `None` for a declaration.
fn body_lines(code: &str) -> Option<usize> {
    let (mut round, mut curly, mut lines) = (0_i32, 0_i32, 1);
    for c in code.chars() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' if curly == 1 => return Some(lines),
            '}' => curly -= 1,
            '\n' => lines += 1,
            _ => {}
        }
    }
    None
}

struct Paths<'a> {
    code: &'a [char],
    at: usize,
    line: usize,
    found: Vec<Found>,
}

impl Paths<'_> {
    fn peek(&self) -> char {
        self.code.get(self.at).copied().unwrap_or('\0')
    }

    fn step(&mut self) {
        if self.peek() == '\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    /// Reads what may follow `prefix`: a name, a group in braces, a star.
    fn tree(&mut self, prefix: &str) {
        while self.peek().is_whitespace() {
            self.step();
        }
        let line = self.line;
        if self.peek() == '{' && !prefix.is_empty() {
            self.step();
            self.group(prefix);
            return;
        }
        let mut text = prefix.to_owned();
        while is_word(self.peek()) || (self.peek() == '*' && text.ends_with("::")) {
            text.push(self.peek());
            self.step();
        }
        let goes_on = self.code[self.at.min(self.code.len())..].starts_with(&[':', ':']);
        if goes_on && !text.is_empty() {
            self.at += 2;
            self.tree(&format!("{text}::"));
        } else {
            self.found.push(Found { line, text });
        }
    }

    fn group(&mut self, prefix: &str) {
        while self.at < self.code.len() {
            match self.peek() {
                '}' => return self.step(),
                c if is_word(c) || c == '*' => {
                    self.tree(prefix);
                    // `as other_name` is no path of its own.
                    while !matches!(self.peek(), ',' | '}' | '\0') {
                        self.step();
                    }
                }
                _ => self.step(),
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with comments, strings and characters as spaces.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = blank_until(&chars, at);
        if end > at {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    code
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn blank_until(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let after_word = at > 0 && is_word(chars[at - 1]) && !matches!(chars[at - 1], 'b' | 'c');
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => at + comment_length(rest),
        ['"', ..] => at + string_length(rest),
        ['r', '"' | '#', ..] if !after_word => at + raw_string_length(rest),
        ['\'', '\\', ..] => {
            let close = rest.iter().skip(3).position(|c| *c == '\'');
            at + close.map_or(rest.len(), |close| close + 4)
        }
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn comment_length(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_length(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// 0 if it is no raw string, but a raw identifier.
fn raw_string_length(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    let body = &rest[hashes + 2..];
    let end = body.windows(close.len()).position(|window| window == close);
    end.map_or(rest.len(), |end| hashes + 2 + end + close.len())
}

#[test]
fn comments_and_literals_are_not_code() {
    let code = blank("a /* b /* c */ */ \"d \\\" e\" r#\"f \" g\"# 'h' '\\n' &'i x // j\nk");
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "&'i", "x", "k"]);
}

#[test]
fn paths_are_written_out() {
    let code = "use crate::{a::{B, self as c}, d::*};\nlet x = std::fs::read::<u8>(y);".to_owned();
    let source = Source { path: String::new(), text: code.clone(), code };
    let paths = source.paths();
    let texts: Vec<&str> = paths.iter().map(|found| found.text.as_str()).collect();
    assert_eq!(texts, ["crate::a::B", "crate::a::self", "crate::d::*", "std::fs::read::",]);
    assert_eq!(paths[3].line, 2);
}

#[test]
fn functions_are_measured_from_head_to_closing_brace() {
    let code = "fn a(x: [u8; 2]);\nfn b() {\n    {}\n}\n".to_owned();
    let source = Source { path: String::new(), text: code.clone(), code };
    let functions = source.functions();
    assert_eq!(functions.len(), 1);
    assert_eq!((functions[0].name.as_str(), functions[0].line, functions[0].lines), ("b", 2, 3));
}
