//! Lines in a frame. Own code, because a picture of two hundred lines needs no crate of twenty
//! thousand.

use super::scale::{Range, Scale, label};
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 56.0;

/// Told apart by people who do not see all colours. Okabe and Ito 2008.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A measured point, and how far it spreads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// Along the lower axis.
    pub(crate) x: f64,
    /// Along the left axis.
    pub(crate) y: f64,
    /// The least and the most, if they are known.
    pub(crate) spread: Option<(f64, f64)>,
}

impl Point {
    /// One without a spread.
    pub(crate) fn at(x: f64, y: f64) -> Point {
        Point { x, y, spread: None }
    }
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What the legend says.
    pub(crate) name: String,
    /// In the order of the lower axis.
    pub(crate) points: Vec<Point>,
    /// Calculated, not measured.
    pub(crate) is_model: bool,
}

/// A picture.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What it shows.
    pub(crate) title: String,
    /// What the lower axis counts, and how.
    pub(crate) x: (String, Scale),
    /// What the left axis counts, and how.
    pub(crate) y: (String, Scale),
    /// The lines.
    pub(crate) lines: Vec<Line>,
    /// What happened at a place of the lower axis.
    pub(crate) events: Vec<(f64, String)>,
}

impl Chart {
    /// The picture as SVG.
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let mut along: Vec<f64> = points().map(|point| point.x).collect();
        along.extend(self.events.iter().map(|(at, _)| *at));
        let ends = |point: &Point| point.spread.map_or([point.y; 2], |(low, high)| [low, high]);
        let up: Vec<f64> =
            points().flat_map(|point| [[point.y; 2], ends(point)].concat()).collect();
        let paper = Paper { x: Range::of(self.x.1, &along), y: Range::of(self.y.1, &up) };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        text(&mut out, (LEFT, 20.0), "start", &self.title);
        self.frame(&mut out, &paper);
        for (at, what) in &self.events {
            event(&mut out, &paper, *at, what);
        }
        for (number, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            draw(&mut out, &paper, line, colour);
            legend(&mut out, number, line, colour);
        }
        out.push_str("</svg>\n");
        out
    }

    /// Axes, their numbers and names.
    fn frame(&self, out: &mut String, paper: &Paper) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in &paper.x.ticks {
            let Some(x) = paper.across(*tick) else { continue };
            stroke(out, (x, TOP), (x, bottom), "#ddd");
            text(out, (x, bottom + 18.0), "middle", &label(*tick));
        }
        for tick in &paper.y.ticks {
            let Some(y) = paper.down(*tick) else { continue };
            stroke(out, (LEFT, y), (right, y), "#ddd");
            text(out, (LEFT - 8.0, y + 4.0), "end", &label(*tick));
        }
        stroke(out, (LEFT, bottom), (right, bottom), "#333");
        stroke(out, (LEFT, TOP), (LEFT, bottom), "#333");
        text(out, (right, HEIGHT - 14.0), "end", &self.x.0);
        text(out, (LEFT - 60.0, TOP - 10.0), "start", &self.y.0);
    }
}

struct Paper {
    x: Range,
    y: Range,
}

impl Paper {
    fn across(&self, number: f64) -> Option<f64> {
        self.x.place(number).map(|place| LEFT + place * (WIDTH - LEFT - RIGHT))
    }

    fn down(&self, number: f64) -> Option<f64> {
        self.y.place(number).map(|place| HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM))
    }
}

fn draw(out: &mut String, paper: &Paper, line: &Line, colour: &str) {
    let mut path = String::new();
    for point in &line.points {
        let Some((x, y)) = paper.across(point.x).zip(paper.down(point.y)) else { continue };
        let pen = if path.is_empty() { 'M' } else { 'L' };
        let _infallible = write!(path, "{pen}{x:.1} {y:.1} ");
        if line.is_model {
            continue;
        }
        let _infallible = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" \
             fill=\"{colour}\"/>"
        );
        let spread = point.spread.and_then(|(low, high)| paper.down(low).zip(paper.down(high)));
        if let Some((low, high)) = spread {
            stroke(out, (x, low), (x, high), colour);
        }
    }
    let dashes = if line.is_model { " stroke-dasharray=\"6 4\"" } else { "" };
    let _infallible = writeln!(
        out,
        "<path d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dashes}/>",
        path.trim_end()
    );
}

/// Three to a row, below the title.
fn legend(out: &mut String, number: usize, line: &Line, colour: &str) {
    let column = f64::from(u32::try_from(number % 3).unwrap_or_default());
    let row = f64::from(u32::try_from(number / 3).unwrap_or_default());
    let (x, y) = (LEFT + 120.0 + column * 185.0, 36.0 + row * 14.0);
    stroke(out, (x, y - 4.0), (x + 16.0, y - 4.0), colour);
    text(out, (x + 21.0, y), "start", &line.name);
}

fn event(out: &mut String, paper: &Paper, at: f64, what: &str) {
    let Some(x) = paper.across(at) else { return };
    stroke(out, (x, TOP), (x, HEIGHT - BOTTOM), "#c00");
    text(out, (x + 4.0, TOP + 12.0), "start", what);
}

fn stroke(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _infallible = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let (x, y) = at;
    let _infallible = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{words}</text>"
    );
}
