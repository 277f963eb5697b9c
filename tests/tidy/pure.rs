//! What a pure folder may not say: the clock, files, sockets, threads, chance, and maps that walk at random.
//!
//! Each rule is a table of names with what to do instead; the tests of a pure folder obey it too.
//! Source: `src/ARCHITECTURE.md`, "the engine never waits, reads a clock, or draws randomness".

use super::lexer::Token;
use super::source::{Name, Source, scan};
use super::tree::Tree;

/// Folders that compute and never meet the machine.
const PURE: &[&str] = &["src/content/", "src/wire/", "src/engine/", "src/sim/"];

/// Folders whose event log must be the same for the same seed.
const ORDERED: &[&str] = &["src/engine/", "src/sim/"];

const TAKE_NOW: &str = "take `now` as an argument";
const STAY_PURE: &str =
    "take values and give outputs, and let `storage`, `network` or `node` perform them";
const TAKE_RNG: &str = "draw from the generator the caller hands in";

/// Paths that no pure folder names, with what to do instead.
const IMPURE_PATHS: &[(&[&str], &str)] = &[
    (&["std", "time", "Instant", "now"], TAKE_NOW),
    (&["std", "fs"], STAY_PURE),
    (
        &["std", "net"],
        "take bytes, not sockets; the value types of addresses are in `core::net`",
    ),
    (&["std", "thread"], STAY_PURE),
    (&["tokio"], STAY_PURE),
    (&["tokio_util"], STAY_PURE),
    (&["socket2"], STAY_PURE),
    (&["rustix"], STAY_PURE),
    (&["cap_std"], STAY_PURE),
    (&["rand", "rng"], TAKE_RNG),
    (&["rand", "random"], TAKE_RNG),
    (&["rand", "make_rng"], TAKE_RNG),
    (&["getrandom"], TAKE_RNG),
];

/// Words that no pure folder says, whatever path leads to them, with what to do instead.
const IMPURE_WORDS: &[(&str, &str)] = &[
    ("SystemTime", TAKE_NOW),
    ("ThreadRng", TAKE_RNG),
    ("OsRng", TAKE_RNG),
    ("SysRng", TAKE_RNG),
    ("thread_rng", TAKE_RNG),
    ("from_os_rng", TAKE_RNG),
    ("from_entropy", TAKE_RNG),
];

/// Whether the file at `path` lies in a folder that never meets the machine.
pub(crate) fn is_pure(path: &str) -> bool {
    PURE.iter().any(|folder| path.starts_with(folder))
}

/// The pure folders name no clock, file, socket, thread, runtime or source of chance.
pub(crate) fn impure_names(tree: &Tree) -> Vec<String> {
    scan(tree, |source, found| {
        if !is_pure(source.path) {
            return;
        }
        for name in &source.names {
            if let Some((path, instead)) = impurity(name) {
                found(name.line, format!("`{path}` in a pure folder: {instead}"));
            }
        }
        for (line, word) in source.words() {
            if let Some((_, instead)) = IMPURE_WORDS.iter().find(|(impure, _)| *impure == word) {
                found(line, format!("`{word}` in a pure folder: {instead}"));
            }
        }
        for line in calls_without_arguments(source, "elapsed") {
            found(
                line,
                format!("`.elapsed()` in a pure folder: {TAKE_NOW} and subtract"),
            );
        }
    })
}

/// The impure path that `name` leads to, and what to do instead.
fn impurity(name: &Name) -> Option<(String, &'static str)> {
    if let Some((path, instead)) = IMPURE_PATHS.iter().find(|(path, _)| name.is_within(path)) {
        return Some((path.join("::"), instead));
    }
    // Whatever crate it comes from: no type of a pure folder has a `now` to ask.
    let asks_now =
        name.segments.len() > 1 && name.segments.last().is_some_and(|last| last == "now");
    asks_now.then(|| (name.segments.join("::"), TAKE_NOW))
}

/// The lines of `.method()`.
fn calls_without_arguments(source: &Source<'_>, method: &str) -> Vec<usize> {
    let is_call = |tokens: &&[Token]| {
        tokens[0].is_mark('.')
            && tokens[1].word() == Some(method)
            && tokens[2].is_mark('(')
            && tokens[3].is_mark(')')
    };
    source
        .tokens
        .windows(4)
        .filter(is_call)
        .map(|tokens| tokens[1].line)
        .collect()
}

/// A map without order in `engine` or `sim` gives its reason in a comment on its line or the line before.
pub(crate) fn unordered_maps(tree: &Tree) -> Vec<String> {
    scan(tree, |source, found| {
        if !ORDERED.iter().any(|folder| source.path.starts_with(folder)) {
            return;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (line, word) in source.words() {
            let is_unordered = ["HashMap", "HashSet"].iter().any(|end| word.ends_with(end))
                || ["hash_map", "hash_set"].contains(&word);
            if is_unordered && !has_reason(&lines, line) {
                found(
                    line,
                    format!(
                        "`{word}` walks in another order each run: use a BTree one, or say `// order: why it is never walked`"
                    ),
                );
            }
        }
    })
}

/// Whether `// order:` and a reason end this line (counted from 1) or fill the one before.
fn has_reason(lines: &[&str], line: usize) -> bool {
    let own = lines[line - 1]
        .split_once("// order:")
        .map(|(_, reason)| reason);
    let above = line
        .checked_sub(2)
        .and_then(|above| lines[above].trim_start().strip_prefix("// order:"));
    own.or(above)
        .is_some_and(|reason| !reason.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::{check, fires, quiet};
    use super::*;

    #[test]
    fn each_impure_name_is_found_in_each_pure_folder() {
        for path in [
            "src/content/a.rs",
            "src/wire/a.rs",
            "src/engine/a.rs",
            "src/sim/a/b.rs",
        ] {
            fires(
                impure_names,
                path,
                "use std::{fmt, fs::File};",
                "`std::fs` in a pure folder",
            );
            fires(
                impure_names,
                path,
                "fn f() { ::std::fs::read(x) }",
                "`std::fs`",
            );
            fires(impure_names, path, "use std::net::TcpStream;", "`std::net`");
            fires(
                impure_names,
                path,
                "std::thread::spawn(f);",
                "`std::thread`",
            );
            fires(
                impure_names,
                path,
                "async fn f(x: tokio::sync::Notify) {}",
                "`tokio`",
            );
            fires(
                impure_names,
                path,
                "use tokio_util::sync::X;",
                "`tokio_util`",
            );
            fires(impure_names, path, "fn f(x: OsRng) {}", "`OsRng`");
            fires(
                impure_names,
                path,
                "use rand::rngs::ThreadRng as R;",
                "`ThreadRng`",
            );
            fires(impure_names, path, "let x = rand::rng();", "`rand::rng`");
            fires(
                impure_names,
                path,
                "let x: u8 = rand::random();",
                "`rand::random`",
            );
            fires(impure_names, path, "start.elapsed();", "`.elapsed()`");
        }
    }

    #[test]
    fn the_clock_is_found_behind_imports_and_aliases() {
        let path = "src/engine/a.rs";
        check(
            impure_names,
            &[(path, "use std::time;\nfn f() { time::SystemTime::now() }")],
            &[
                "src/engine/a.rs:2: `SystemTime` in a pure folder: take `now`",
                "src/engine/a.rs:2: `std::time::SystemTime::now` in a pure folder: take `now`",
            ],
        );
        let renamed = "use std::time::Instant as Clock; fn f() { Clock::now() }";
        fires(
            impure_names,
            path,
            renamed,
            "`std::time::Instant::now` in a pure folder",
        );
        fires(
            impure_names,
            path,
            "fn f() { a::Instant::now() }",
            "`a::Instant::now` in a pure folder",
        );
        fires(impure_names, path, "use std::*;", "`std::");
    }

    #[test]
    fn values_prose_and_other_folders_may_say_them() {
        quiet(
            impure_names,
            "src/engine/a.rs",
            "use std::time::{Duration, Instant}; fn f(now: Instant) {}",
        );
        quiet(
            impure_names,
            "src/engine/a.rs",
            "use rand::{Rng, rngs::StdRng}; fn f(rng: &mut StdRng) {}",
        );
        quiet(
            impure_names,
            "src/content/a.rs",
            "use core::net::IpAddr; use std::fmt::*;",
        );
        quiet(
            impure_names,
            "src/engine/a.rs",
            "// std::fs\n/// tokio\nlet x = \"Instant::now()\"; let now = self.now;",
        );
        quiet(
            impure_names,
            "src/engine/a.rs",
            "fn elapsed(&self, from: Time) -> Duration { now.elapsed_since(from) }",
        );
        quiet(
            impure_names,
            "src/node/a.rs",
            "use std::fs; use tokio::spawn; fn f() { std::time::Instant::now().elapsed(); }",
        );
    }

    #[test]
    fn a_map_without_order_needs_a_reason() {
        let rule = unordered_maps;
        fires(
            rule,
            "src/engine/a.rs",
            "use std::collections::HashMap;",
            "`HashMap` walks in another order",
        );
        fires(
            rule,
            "src/sim/a.rs",
            "x: FxHashSet<u8>, // order:",
            "`FxHashSet`",
        );
        fires(
            rule,
            "src/sim/a.rs",
            "use std::collections::hash_map::Entry; // ordered by nobody",
            "`hash_map`",
        );
        quiet(
            rule,
            "src/engine/a.rs",
            "x: HashMap<u8, u8>, // order: looked up by key only",
        );
        quiet(
            rule,
            "src/engine/a.rs",
            "    // order: looked up by key only\n    x: HashMap<u8, u8>,",
        );
        quiet(
            rule,
            "src/engine/a.rs",
            "use std::collections::{BTreeMap, BTreeSet}; // a HashMap would do",
        );
        quiet(rule, "src/node/a.rs", "use std::collections::HashMap;");
    }
}
