//! Words and numbers of the tables.

use std::io::Write;

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
