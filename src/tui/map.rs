//! The piece map: which parts of a share are here, as one row of characters.
//!
//! Pure. A column is only full when all of its pieces are here, only empty when none is. Called by `frame`.

use super::style::{Glyphs, Line, Tone};

/// Steps from empty to full, with both.
const LEVELS: usize = 5;
const FULL: usize = LEVELS - 1;

/// A row of `columns` characters for the fullness of equal stretches of the share, 0 to 255 each.
pub(super) fn map(stretches: &[u8], columns: usize, glyphs: Glyphs) -> Line {
    let characters: [char; LEVELS] = match glyphs {
        Glyphs::Unicode => ['·', '░', '▒', '▓', '█'],
        Glyphs::Ascii => ['.', ':', '-', '=', '#'],
    };
    let mut line = Line::default();
    let levels: Vec<usize> = (0..columns)
        .map(|column| level(covered(stretches, column, columns)))
        .collect();
    for run in levels.chunk_by(|left, right| tone(*left) == tone(*right)) {
        let text: String = run.iter().map(|level| characters[*level]).collect();
        line.push(tone(run[0]), text);
    }
    line
}

/// The stretches that column `column` of `columns` stands for; at least one when there are any.
fn covered(stretches: &[u8], column: usize, columns: usize) -> &[u8] {
    if stretches.is_empty() {
        return stretches;
    }
    let first = column * stretches.len() / columns;
    let end = ((column + 1) * stretches.len()).div_ceil(columns);
    &stretches[first..end.max(first + 1).min(stretches.len())]
}

fn level(stretches: &[u8]) -> usize {
    let sum: usize = stretches.iter().map(|stretch| usize::from(*stretch)).sum();
    let most = stretches.len() * usize::from(u8::MAX);
    if sum == 0 {
        0
    } else if sum == most {
        FULL
    } else {
        1 + sum * (FULL - 1) / most
    }
}

fn tone(level: usize) -> Tone {
    match level {
        0 => Tone::Faint,
        FULL => Tone::Good,
        _ => Tone::Warning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(stretches: &[u8], columns: usize) -> String {
        map(stretches, columns, Glyphs::Ascii).plain()
    }

    #[test]
    fn a_map_has_exactly_its_columns_however_many_stretches_there_are() {
        for stretches in [0, 1, 7, 80, 255, 256] {
            for columns in [1, 39, 80, 200] {
                let text = drawn(&vec![255; stretches], columns);
                let expected = if stretches == 0 { "." } else { "#" };
                assert_eq!(text, expected.repeat(columns), "{stretches} in {columns}");
            }
        }
    }

    #[test]
    fn a_column_is_full_or_empty_only_without_exception() {
        assert_eq!(drawn(&[255, 254, 0, 0], 2), "=.");
        assert_eq!(drawn(&[255, 255, 0, 1], 2), "#:");
        assert_eq!(drawn(&[0, 60, 120, 200, 255], 5), ".:-=#");
    }

    #[test]
    fn few_stretches_are_drawn_wide() {
        assert_eq!(drawn(&[255, 0], 8), "####....");
    }
}
