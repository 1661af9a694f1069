//! Which pictures are drawn of what was measured.

use crate::Result;
use crate::contest::Outcome;
use crate::kill::{self, Kill, Seen};
use crate::model::{Model, Scene};
use crate::plot::{Chart, Line, Point, Scale};
use crate::recovery::Recovered;
use crate::rows::{Axis, Group, RowPace};
use crate::stats::Spread;
use raftd::client::load::float;
use std::fs;
use std::path::{Path, PathBuf};

/// A row of the table, and the systems it was measured on.
pub(crate) type Measured = (Group, Outcome);

/// Everything that can be drawn of the rows. Returns the files.
pub(crate) fn of_rows(directory: &Path, rows: &[Measured], model: &Model) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for axis in Axis::ALL {
        let found: Vec<&Measured> =
            rows.iter().filter(|(_, outcome)| is_of(outcome, axis)).collect();
        if found.len() > 1 {
            let name = format!("scale-{}", axis.to_string().replace(' ', "-"));
            files.push(write(directory, &name, &scaling(axis, &found, model))?);
        }
    }
    let mut places: Vec<String> = rows.iter().filter_map(open_place).collect();
    places.sort();
    places.dedup();
    for place in places {
        let of_place = |row: &&Measured| open_place(row).as_ref() == Some(&place);
        let found: Vec<&Measured> = rows.iter().filter(of_place).collect();
        if found.len() > 1 {
            let name = format!("latency-{}", place.replace(' ', "-"));
            files.push(write(directory, &name, &throughput_latency(&place, &found))?);
        }
    }
    Ok(files)
}

fn write(directory: &Path, name: &str, chart: &Chart) -> Result<PathBuf> {
    let path = directory.join(format!("{name}.svg"));
    fs::write(&path, chart.svg())?;
    Ok(path)
}

fn is_of(outcome: &Outcome, axis: Axis) -> bool {
    outcome.row.series.is_some_and(|(of, _)| of == axis)
}

/// Puts a second along a series, and the model's line.
fn scaling(axis: Axis, rows: &[&Measured], model: &Model) -> Chart {
    let (mut measured, mut modelled) = (Vec::new(), Vec::new());
    for (group, outcome) in rows {
        let Some((_, place)) = outcome.row.series else { continue };
        let x = f64::from(place);
        let rates = outcome.of[0].slices.iter().map(|slice| slice.rate);
        if let Some(Spread { median, least, most, .. }) = Spread::of(rates) {
            measured.push(Point { x, y: median, spread: Some((least, most)) });
        }
        let scene = Scene {
            keys: group.keys,
            value_bytes: group.value_bytes,
            nodes: group.nodes,
            shape: outcome.row.shape,
        };
        modelled.push(Point::at(x, model.puts_per_s(scene)));
    }
    let scale = if axis == Axis::Nodes { Scale::Even } else { Scale::Powers };
    Chart {
        title: format!("raftd: puts a second by {axis}, /dev/shm"),
        x: (axis.to_string(), scale),
        y: ("puts/s".to_owned(), Scale::Even),
        lines: vec![
            Line { name: "measured".to_owned(), points: measured, is_model: false },
            Line { name: "model".to_owned(), points: modelled, is_model: true },
        ],
        events: Vec::new(),
    }
}

/// Where an open row's systems ran, if it is one.
fn open_place((group, outcome): &Measured) -> Option<String> {
    match outcome.row.pace {
        RowPace::Closed => None,
        RowPace::Share(_) => Some(format!("{} {}k", group.medium, group.keys / 1000)),
    }
}

/// Latencies of open loops by what was done a second, for every system.
fn throughput_latency(place: &str, rows: &[&Measured]) -> Chart {
    let mut names: Vec<&str> = Vec::new();
    for measured in rows.iter().flat_map(|(_, outcome)| &outcome.of) {
        if !names.contains(&measured.name.as_str()) {
            names.push(&measured.name);
        }
    }
    let mut lines = Vec::new();
    for name in names {
        for (quantile, said) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
            let of_system = rows.iter().flat_map(|(_, outcome)| &outcome.of);
            let mut points: Vec<Point> = of_system
                .filter(|measured| measured.name == name)
                .map(|measured| {
                    let latency = measured.tally.latency().value_at_quantile(quantile);
                    Point::at(measured.used.rate(), float(latency) / 1e6)
                })
                .collect();
            points.sort_by(|one, other| one.x.total_cmp(&other.x));
            lines.push(Line { name: format!("{name} {said}"), points, is_model: false });
        }
    }
    Chart {
        title: format!("Latency of puts by throughput, an open loop, {place}"),
        x: ("puts/s".to_owned(), Scale::Powers),
        y: ("ms".to_owned(), Scale::Powers),
        lines,
        events: Vec::new(),
    }
}

/// Latencies over time, or how long outages were.
pub(crate) fn of_kill(directory: &Path, kill: Kill, seen: &Seen) -> Result<Vec<PathBuf>> {
    let line = |name: &str, points| Line { name: name.to_owned(), points, is_model: false };
    let name = kill.name().replace(' ', "-");
    match seen {
        Seen::Timeline { moments, .. } => {
            let events = kill::events().map(|(at, what)| (at, what.to_owned())).to_vec();
            let figure = |pick: fn((f64, f64, f64)) -> f64| {
                let known = moments.iter().filter_map(|moment| Some((moment.at_s, moment.ms?)));
                known.map(|(at, ms)| Point::at(at, pick(ms))).collect()
            };
            let latency = Chart {
                title: "Puts due at each moment: how long they took".to_owned(),
                x: ("seconds".to_owned(), Scale::Even),
                y: ("ms".to_owned(), Scale::Powers),
                lines: vec![
                    line("p50", figure(|(p50, _, _)| p50)),
                    line("p99", figure(|(_, p99, _)| p99)),
                    line("max", figure(|(_, _, max)| max)),
                ],
                events,
            };
            Ok(vec![write(directory, &name, &latency)?])
        }
        Seen::Outages(outages) => {
            let all = float(u64::try_from(outages.len())?);
            let place = |at: usize| float(u64::try_from(at + 1).unwrap_or(u64::MAX)) / all;
            let points =
                outages.iter().enumerate().map(|(at, ms)| Point::at(*ms, place(at))).collect();
            let chart = Chart {
                title: "kill -9 of the leader: the share of kills after which no put waited longer"
                    .to_owned(),
                x: ("ms".to_owned(), Scale::Even),
                y: ("share".to_owned(), Scale::Even),
                lines: vec![line("raftd", points)],
                events: Vec::new(),
            };
            Ok(vec![write(directory, &name, &chart)?])
        }
    }
}

/// Starts by the size of the log.
pub(crate) fn of_recoveries(directory: &Path, found: &[Recovered]) -> Result<Option<PathBuf>> {
    if found.len() < 2 {
        return Ok(None);
    }
    let points = |figure: fn(&Recovered) -> f64| {
        found.iter().map(|one| Point::at(one.mib(), figure(one))).collect()
    };
    let line = |name: &str, points, is_model| Line { name: name.to_owned(), points, is_model };
    let chart = Chart {
        title: "From the start of a server to its first put, by the size of its log".to_owned(),
        x: ("MiB of files".to_owned(), Scale::Powers),
        y: ("seconds".to_owned(), Scale::Powers),
        lines: vec![
            line("start to serving", points(|one| one.start_s), false),
            line("reading and a CRC", points(|one| one.read_s), true),
        ],
        events: Vec::new(),
    };
    write(directory, "recovery", &chart).map(Some)
}
