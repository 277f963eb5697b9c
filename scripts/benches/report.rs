//! Words and numbers of the tables.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

/// Prints a line.
pub(crate) fn say(text: &str) {
    // A closed terminal does not change what was measured.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The middle value; of an even number the upper one of the two. NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median with the least and the most.
pub(crate) fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(values))
}

/// A number of every line of ours that has it.
pub(crate) fn of(lines: &[Value], key: &str) -> Vec<f64> {
    lines.iter().filter_map(|line| line[key].as_f64()).collect()
}

/// Its median.
pub(crate) fn median_of(lines: &[Value], key: &str) -> f64 {
    median(&of(lines, key))
}

/// A number of the runs of each other program.
pub(crate) fn of_peers(lines: &[Value], key: &str) -> BTreeMap<String, Vec<f64>> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for peer in lines.iter().map(|line| &line["peer"]) {
        if let (Some(name), Some(value)) = (peer["name"].as_str(), peer[key].as_f64()) {
            all.entry(name.to_owned()).or_default().push(value);
        }
    }
    all
}
