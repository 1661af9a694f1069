//! Whether two runs agree: the ratios to the peers, row by row.

use crate::Result;
use crate::stats::Ratio;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Ratios of one row that are further apart than this share are marked.
const AGREE: f64 = 0.15;

/// Few in flight say more about the machine's wake-ups than about the systems.
const IN_FLIGHT_LEAST: u64 = 1000;

/// What is compared, by its name in the file and for people.
const RATIOS: [(&str, &str); 2] = [("server_cpu_per_op", "CPU"), ("ops_per_s", "ops/s")];

/// Reads the files of two runs, and says which rows with a thousand and more in flight agree.
pub(crate) fn runs(directory: &Path, first: &str, second: &str) -> Result<String> {
    let [one, other] = [first, second].map(|name| read(directory, name));
    let (one, other) = (one?, other?);
    let mut text = format!("ratios to the peers, {first} and {second}; apart by more than 15 %: !");
    let (mut compared, mut apart) = (0_u32, 0_u32);
    for row in rows(&one).filter(|row| is_crowded(row)) {
        let Some(again) = rows(&other).find(|it| it["name"] == row["name"]) else { continue };
        for peer in list(&row["ratios"]) {
            let same = list(&again["ratios"]).find(|it| it["against"] == peer["against"]);
            let Some(against) = same else { continue };
            for (key, said) in RATIOS {
                let medians = [peer, against].map(|it| it[key]["median"].as_f64());
                let [Some(first), Some(second)] = medians else { continue };
                let difference = (second / first - 1.0).abs();
                compared += 1;
                apart += u32::from(difference > AGREE);
                let mark = if difference > AGREE { "!" } else { " " };
                let name = row["name"].as_str().unwrap_or_default();
                let peer = peer["against"].as_str().unwrap_or_default();
                let (first, second) = (Ratio(first).to_string(), Ratio(second).to_string());
                let percent = difference * 100.0;
                let _infallible = write!(
                    text,
                    "\n{mark} {name:<32} {peer:<20} {said:<6} {first:>8} {second:>8} \
                     {percent:>5.1} %"
                );
            }
        }
    }
    let _infallible = write!(text, "\n{apart} of {compared} apart");
    Ok(text)
}

/// Whether a row is a closed loop with many requests in flight.
fn is_crowded(row: &Value) -> bool {
    let is_closed = list(&row["systems"]).all(|system| system["asked_per_s"].is_null());
    is_closed && row["in_flight"].as_u64() >= Some(IN_FLIGHT_LEAST)
}

fn read(directory: &Path, name: &str) -> Result<Value> {
    let path = directory.join(format!("{name}.json"));
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

fn rows(run: &Value) -> impl Iterator<Item = &Value> {
    list(&run["rows"])
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
