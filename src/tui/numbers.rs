//! Numbers as people read them: sizes, rates, spans of time, counts of things.
//!
//! Owns the words and the rounding; scripts get exact numbers from JSON instead. Reading numbers that people write is
//! `cli/units`. Called by the rest of this folder and by `cli/output`.
//! Source: IEC 80000-13 (Ki, Mi, Gi are powers of 1,024).

use std::time::Duration;

/// Powers of 1,024, by name.
const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `count` bytes with about three digits: `0 B`, `5.9 GiB`, `212 MiB`. At most eight characters.
#[must_use]
pub fn bytes(count: u64) -> String {
    let (number, unit) = scaled(count);
    format!("{number} {unit}")
}

/// `part` of `whole` bytes, with one unit where both share it: `3.6/5.9 GiB`, `512 KiB/5.9 GiB`.
#[must_use]
pub(super) fn part(part: u64, whole: u64) -> String {
    let ((number, unit), (of, of_unit)) = (scaled(part), scaled(whole));
    if unit == of_unit {
        format!("{number}/{of} {of_unit}")
    } else {
        format!("{number} {unit}/{of} {of_unit}")
    }
}

/// Bytes per second: `84.1 MiB/s`. At most ten characters.
#[must_use]
pub fn rate(per_sec: u64) -> String {
    bytes(per_sec) + "/s"
}

fn scaled(count: u64) -> (String, &'static str) {
    if count < 1024 {
        return (count.to_string(), UNITS[0]);
    }
    // Lossless enough: three digits are shown.
    let mut number = count as f64;
    let mut unit = 0;
    // 1023.95 would show as `1024`.
    while number >= 1023.5 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    let text = if number >= 99.95 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    };
    (text, UNITS[unit])
}

/// Whole percent of `part` in `whole`, rounded down: 100 only when nothing is missing.
#[must_use]
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 100;
    }
    let percent = u128::from(part.min(whole)) * 100 / u128::from(whole);
    u64::try_from(percent).expect("a percentage of a part is at most 100")
}

/// A span measured: tenths of a second below a minute, `29.4s`, then as [`rough`].
#[must_use]
pub fn seconds(span: Duration) -> String {
    if span < Duration::from_secs(MINUTE) {
        format!("{:.1}s", span.as_secs_f64())
    } else {
        rough(span)
    }
}

/// A span expected or passed, its two largest units: `11s`, `2m 5s`, `3h 20m`, `4days 1h`.
#[must_use]
pub fn rough(span: Duration) -> String {
    let secs = span.as_secs();
    let step = match secs {
        0..HOUR => 1,
        HOUR..DAY => MINUTE,
        _ => HOUR,
    };
    humantime::format_duration(Duration::from_secs(secs - secs % step)).to_string()
}

/// Milliseconds, begun ones included and at least one: nothing takes no time at all.
#[must_use]
pub(super) fn millis(span: Duration) -> String {
    format!("{} ms", span.as_micros().div_ceil(1000).max(1))
}

/// `1 piece`, `9 pieces`, `1,482 pieces`; for words that take an `s`.
#[must_use]
pub fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(count))
}

/// What is in a share: `3 files`, `1 file and 2 folders`, `0 files, 31,500 folders and 1 link`.
#[must_use]
pub fn contents(files: u32, folders: u32, links: u32) -> String {
    let text = counted(files.into(), "file");
    let (folder_text, link_text) = (
        counted(folders.into(), "folder"),
        counted(links.into(), "link"),
    );
    match (folders, links) {
        (0, 0) => text,
        (_, 0) => format!("{text} and {folder_text}"),
        (0, _) => format!("{text} and {link_text}"),
        _ => format!("{text}, {folder_text} and {link_text}"),
    }
}

/// With a comma between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_about_three_digits_and_never_show_1024() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (102_297, "99.9 KiB"),
            (102_399, "100 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (6_335_076_762, "5.9 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn a_part_names_the_unit_once_where_it_is_the_same() {
        assert_eq!(part(3 << 30, 6 << 30), "3.0/6.0 GiB");
        assert_eq!(part(3 << 20, 6 << 30), "3.0 MiB/6.0 GiB");
    }

    #[test]
    fn all_but_one_byte_is_not_100_percent() {
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(percent(5, 5), 100);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(1, 3), 33);
    }

    #[test]
    fn spans_show_two_units() {
        let cases = [
            (0, "0s"),
            (11, "11s"),
            (125, "2m 5s"),
            (3_600, "1h"),
            (12_005, "3h 20m"),
            (349_300, "4days 1h"),
        ];
        for (secs, text) in cases {
            assert_eq!(rough(Duration::from_secs(secs)), text, "{secs}");
        }
        assert_eq!(seconds(Duration::from_millis(29_440)), "29.4s");
        assert_eq!(millis(Duration::from_micros(39_001)), "40 ms");
        assert_eq!(millis(Duration::ZERO), "1 ms");
    }

    #[test]
    fn counts_have_a_plural_and_commas() {
        assert_eq!(counted(1, "piece"), "1 piece");
        assert_eq!(counted(0, "peer"), "0 peers");
        assert_eq!(counted(1_482, "piece"), "1,482 pieces");
        assert_eq!(counted(12_345_678, "byte"), "12,345,678 bytes");
    }

    #[test]
    fn a_share_tells_folders_and_links_where_it_has_some() {
        assert_eq!(contents(2, 0, 0), "2 files");
        assert_eq!(contents(0, 31_500, 0), "0 files and 31,500 folders");
        assert_eq!(contents(1, 0, 2), "1 file and 2 links");
        assert_eq!(contents(1, 1, 1), "1 file, 1 folder and 1 link");
    }
}
