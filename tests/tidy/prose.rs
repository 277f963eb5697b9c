//! What lies about in texts: leftover markers, paths of somebody's machine, links in `.md` files that lead
//! nowhere, and strangers in the root folder.
//!
//! Markers that this file itself has to name are put together from halves.

use super::source::sources;
use super::tree::Tree;

/// Names allowed in the root folder, besides those that begin with a dot.
const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "tests",
    "scripts",
    "README.md",
    "LICENSE",
    "target",
];

/// Words that mark unfinished work in any text.
const MARKERS: &[&str] = &[
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
];

/// Macros that mark it in code.
const MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

/// Folders of a machine on which the project was written.
const MACHINE: &[&str] = &[
    concat!("/", "root"),
    concat!("/", "work"),
    concat!("/tmp", "/h"),
];

/// Only the listed names and dotfiles lie in the root folder.
pub(crate) fn strangers_at_the_top(tree: &Tree) -> Vec<String> {
    tree.top
        .iter()
        .filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str()))
        .map(|name| {
            format!(
                "{name}:1: does not belong in the root folder: move it below src, tests or scripts"
            )
        })
        .collect()
}

/// No leftover of unfinished work.
pub(crate) fn leftovers(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources(tree, "") {
        for pair in source.tokens.windows(2) {
            if let Some(word) = pair[0]
                .word()
                .filter(|word| MACROS.contains(word) && pair[1].is_mark('!'))
            {
                findings.push(source.finding(
                    pair[0].line,
                    &format!("`{word}!` is unfinished work: finish it or take it out"),
                ));
            }
        }
        for attribute in &source.attributes {
            let says = |word: &str| attribute.words.iter().any(|said| said == word);
            let first = attribute.words.first().map_or("", String::as_str);
            if first == "ignore" || (first == "cfg_attr" && says("ignore")) {
                findings.push(source.finding(
                    attribute.line,
                    "an ignored test proves nothing: mend it or delete it",
                ));
            }
            if (says("allow") || says("expect")) && (says("dead_code") || says("unused")) {
                findings.push(source.finding(
                    attribute.line,
                    "dead code is kept on purpose: delete it; history remembers",
                ));
            }
        }
    }
    for (path, text) in &tree.files {
        for (number, line) in text.lines().enumerate() {
            for marker in MARKERS.iter().filter(|marker| has_word(line, marker)) {
                findings.push(format!(
                    "{path}:{}: `{marker}` is unfinished work: do it now or write an issue",
                    number + 1
                ));
            }
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(joins)
            && !line[at + word.len()..].chars().next().is_some_and(joins)
    })
}

/// No file names a folder that exists on one machine only.
pub(crate) fn machine_paths(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in &tree.files {
        for (number, line) in text.lines().enumerate() {
            for folder in MACHINE.iter().filter(|folder| has_absolute(line, folder)) {
                findings.push(format!(
                    "{path}:{}: `{folder}` exists on one machine only: use a relative path",
                    number + 1
                ));
            }
        }
    }
    findings
}

/// Whether `line` names `folder` from the root of a file system, not as a part of a longer path or a word.
fn has_absolute(line: &str, folder: &str) -> bool {
    let continues_path = |c: char| c.is_alphanumeric() || "_-.~/}>)*$".contains(c);
    let continues_name = |c: char| c.is_alphanumeric() || "_-".contains(c);
    line.match_indices(folder).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(continues_path)
            && !line[at + folder.len()..]
                .chars()
                .next()
                .is_some_and(continues_name)
    })
}

/// Every relative link in a `.md` leads to a file or folder of the project.
pub(crate) fn dead_links(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, target) in links(text) {
            let file = target.split(['#', '?']).next().unwrap_or_default();
            // Addresses, anchors within the page, and names that rustdoc resolves.
            if file.is_empty()
                || file.contains("::")
                || file
                    .split('/')
                    .next()
                    .is_some_and(|first| first.contains(':'))
            {
                continue;
            }
            if !resolve(folder, file).is_some_and(|file| tree.has(&file)) {
                findings.push(format!(
                    "{path}:{line}: the link to `{target}` leads nowhere: mend or remove it"
                ));
            }
        }
    }
    findings
}

/// `target` seen from `folder`; `None` when it leaves the project or begins at a file system's root.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Targets of `[text](target)` and `[name]: target`, outside code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    let mut fence: Option<&str> = None;
    for (number, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
            (None, None) => {
                let prose = without_code(line);
                let defined = prose
                    .trim_start()
                    .strip_prefix('[')
                    .and_then(|rest| rest.split_once("]:"))
                    .map(|(_, target)| target);
                let inline = prose.match_indices("](").map(|(at, _)| &prose[at + 2..]);
                let targets = defined.into_iter().chain(inline).filter_map(target_of);
                links.extend(targets.map(|target| (number + 1, target)));
            }
        }
    }
    links
}

/// `line` without its `` `code` ``.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The target at the start of `text`, without angle brackets or title.
fn target_of(text: &str) -> Option<String> {
    let text = text.trim_start();
    let target = match text.strip_prefix('<') {
        Some(bracketed) => bracketed.split('>').next(),
        None => text.split([' ', ')', '\t']).next(),
    };
    target
        .filter(|target| !target.is_empty())
        .map(|target| target.replace("%20", " "))
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn a_stranger_in_the_root_folder_is_found() {
        check(
            strangers_at_the_top,
            &[("notes.txt", ""), ("docs/a.md", "")],
            &["docs:1: does not belong", "notes.txt:1: does not"],
        );
        let ours = [
            "Cargo.toml",
            "Cargo.lock",
            "src/a",
            "tests/a",
            "scripts/a",
            "README.md",
            "LICENSE",
            ".ci/run",
            "target/a",
        ];
        check(strangers_at_the_top, &ours.map(|path| (path, "")), &[]);
    }

    #[test]
    fn each_leftover_in_code_is_found() {
        // Text for the check to find: nothing here is unfinished or ignored itself.
        for (code, what) in [
            ("todo!()", "`todo!` is unfinished"),
            ("unimplemented! { }", "`unimplemented!`"),
            ("std::dbg!(x);", "`dbg!`"),
            ("#[ignore = \"slow\"] fn f() {}", "an ignored test"),
            ("#[cfg_attr(windows, ignore)] fn f() {}", "an ignored test"),
            ("#![allow(dead_code)]", "dead code is kept"),
            (
                "#[expect(a::b, dead_code, reason = \"x\")] fn f() {}",
                "dead code is kept",
            ),
        ] {
            check(
                leftovers,
                &[("src/a.rs", &format!("\n{code}"))],
                &[&format!("src/a.rs:2: {what}")],
            );
        }
    }

    #[test]
    fn each_leftover_in_prose_is_found() {
        for marker in MARKERS {
            let text = format!("a\n# {marker}: later");
            check(
                leftovers,
                &[("scripts/run", &text)],
                &[&format!("scripts/run:2: `{marker}` is unfinished work")],
            );
            check(
                leftovers,
                &[("a.rs", &format!("// ({marker})"))],
                &["a.rs:1: "],
            );
        }
    }

    #[test]
    fn names_that_only_look_like_leftovers_are_quiet() {
        check(
            leftovers,
            &[
                (
                    "src/a.rs",
                    "use ignore::Walk; #[derive(Debug)] fn todo() { x.dbg; a != b; todo(); \"todo!()\" }",
                ),
                (
                    "src/b.rs",
                    "#[cfg(feature = \"ignore\")] fn f() {} #[allow(clippy::unwrap_used)] fn g() {} // todo!",
                ),
                ("scripts/a", "mktemp shoal-XXXXXX; METHODO; a_TODO_b"),
            ],
            &[],
        );
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for folder in MACHINE {
            for line in [
                format!("cd {folder}"),
                format!("x = \"{folder}/a\""),
                format!("({folder}/a)"),
                format!("PATH={folder}:b"),
            ] {
                check(
                    machine_paths,
                    &[("a.sh", &format!("\n{line}"))],
                    &[&format!("a.sh:2: `{folder}` exists on one")],
                );
            }
            for line in [
                format!("a{folder}/b"),
                format!("..{folder}"),
                format!("{folder}er"),
                format!("$HOME{folder}/a"),
            ] {
                check(machine_paths, &[("a.sh", &line)], &[]);
            }
        }
        check(
            machine_paths,
            &[("a.md", "https://host/path and/or /tmp/x /etc/passwd")],
            &[],
        );
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        check(
            dead_links,
            &[
                (
                    "README.md",
                    "ok\n[a](src/gone.md)\n[b](src/a.md \"title\") [c](./gone/)\n\n[d]: <gone file.md>",
                ),
                (
                    "src/a.md",
                    "[up](../../outside.md) [root](/src/a.md) [anchor](gone.md#part)",
                ),
            ],
            &[
                "README.md:2: the link to `src/gone.md` leads nowhere",
                "README.md:3: the link to `./gone/`",
                "README.md:5: the link to `gone file.md`",
                "src/a.md:1: the link to `../../outside.md`",
                "src/a.md:1: the link to `/src/a.md`",
                "src/a.md:1: the link to `gone.md#part`",
            ],
        );
    }

    #[test]
    fn links_that_lead_somewhere_or_elsewhere_are_quiet() {
        check(
            dead_links,
            &[
                (
                    "README.md",
                    "[a](src/wire/P.md#x) [b](src/wire/) [c](src) [d](#here) [e](https://a.b/c) [f](mailto:a@b)",
                ),
                (
                    "src/wire/P.md",
                    "[up](../../README.md) [`e`](crate::engine) `[x](gone.md)`\n```\n[x](gone.md)\n~~~\n```\n[p]: P.md",
                ),
                ("src/a.rs", "//! [x](gone.md)"),
            ],
            &[],
        );
    }
}
