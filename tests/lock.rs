//! Minimum versions over `Cargo.lock`: what a known fault makes us refuse, whoever pulls it in.
//!
//! The public advisory database lacks several faults of 2026 in libp2p and yamux, so the list stands here. Every
//! locked package counts, behind an optional feature or not. Called by the test runner alone.
//! Source: RustSec and GitHub advisories, named in each row.

use std::cmp::Ordering;

/// What is asked of every locked version of a crate.
#[derive(Clone, Copy)]
enum Ask {
    AtLeast(&'static str),
    Exactly(&'static str),
    Absent,
}
use Ask::{Absent, AtLeast, Exactly};

/// Crate, what is asked, why.
type Row = (&'static str, Ask, &'static str);

/// One row per crate; a crate that is not locked is fine unless [`REQUIRED`] has it.
const ROWS: &[Row] = &[
    ("libp2p", AtLeast("0.57.1"), "first line without yamux 0.12"),
    ("libp2p-core", AtLeast("0.31.1"), "RUSTSEC-2022-0009"),
    (
        "libp2p-gossipsub",
        AtLeast("0.50.1"),
        "CVE-2026-33040, CVE-2026-34219, GHSA-vrx6-jcp8-vm7m, GHSA-g3g5-x568-qvqx",
    ),
    (
        "libp2p-quic",
        AtLeast("0.13.1"),
        "GHSA-5hq8-qhww-jm7q: a bad certificate panics",
    ),
    (
        "libp2p-relay",
        AtLeast("0.22.0"),
        "a circuit to a peer without reservation panics",
    ),
    (
        "libp2p-rendezvous",
        AtLeast("0.18.0"),
        "CVE-2026-35405, GHSA-v5hw-cv9c-rpg7: registrations without bound",
    ),
    (
        "yamux",
        AtLeast("0.14.1"),
        "CVE-2026-32314: one frame panics; lost wake-up of split streams",
    ),
    (
        "quinn-proto",
        AtLeast("0.11.15"),
        "RUSTSEC-2026-0185, RUSTSEC-2026-0037, RUSTSEC-2024-0373",
    ),
    ("snow", AtLeast("0.9.5"), "RUSTSEC-2024-0011"),
    ("rustls", AtLeast("0.23.18"), "RUSTSEC-2024-0399"),
    (
        "rustls-webpki",
        AtLeast("0.103.13"),
        "RUSTSEC-2026-0049, -0098, -0099, -0104",
    ),
    (
        "ring",
        AtLeast("0.17.12"),
        "RUSTSEC-2025-0009: a packet panics where overflow is checked",
    ),
    (
        "aws-lc-sys",
        AtLeast("0.39.0"),
        "RUSTSEC-2026-0044 to -0048",
    ),
    (
        "hickory-proto",
        AtLeast("0.26.1"),
        "RUSTSEC-2026-0118, -0119, -0120",
    ),
    (
        "hickory-net",
        AtLeast("0.26.1"),
        "RUSTSEC-2026-0118, -0119, -0120",
    ),
    ("bytes", AtLeast("1.11.1"), "RUSTSEC-2026-0007"),
    ("h2", AtLeast("0.4.16"), "RUSTSEC-2026-0258"),
    ("tokio", AtLeast("1.44.2"), "RUSTSEC-2025-0023"),
    (
        "tracing-subscriber",
        AtLeast("0.3.20"),
        "RUSTSEC-2025-0055: escape sequences reach the log",
    ),
    ("slab", AtLeast("0.4.11"), "RUSTSEC-2025-0047"),
    ("idna", AtLeast("1.0.3"), "RUSTSEC-2024-0421"),
    ("time", AtLeast("0.3.47"), "RUSTSEC-2026-0009"),
    ("multihash", AtLeast("0.11.3"), "RUSTSEC-2020-0068"),
    ("crossbeam-epoch", AtLeast("0.9.20"), "RUSTSEC-2026-0204"),
    ("lru", AtLeast("0.18.2"), "RUSTSEC-2026-0253"),
    (
        "bincode",
        Exactly("2.0.1"),
        "3.0.0 is a compile error by intent, and the bytes are pinned; RUSTSEC-2025-0141 is accepted",
    ),
    ("openssl", Absent, "TLS comes from rustls"),
    ("openssl-sys", Absent, "TLS comes from rustls"),
    ("native-tls", Absent, "TLS comes from rustls"),
];

/// Crates whose absence means that this test reads the wrong file or reads it wrongly.
const REQUIRED: &[&str] = &["shoal", "libp2p", "yamux", "snow", "bincode", "tokio"];

/// The only place packages come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// One `[[package]]` of a lock file.
#[derive(Default)]
struct Package {
    /// Of its `version`, counted from 1.
    line: usize,
    name: String,
    version: String,
    /// Empty for a package of this project.
    source: String,
    checksum: String,
}

/// The packages of a lock file; other tables and keys are passed over.
fn packages(lock: &str) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    let mut inside = false;
    for (number, line) in lock.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end() == "[[package]]";
            if inside {
                packages.push(Package::default());
            }
            continue;
        }
        let Some((key, value)) = line.split_once(" = ").filter(|_| inside) else {
            continue;
        };
        let Some(package) = packages.last_mut() else {
            continue;
        };
        let value = value.trim().trim_matches('"').to_owned();
        match key {
            "name" => package.name = value,
            "version" => {
                package.version = value;
                package.line = number + 1;
            }
            "source" => package.source = value,
            "checksum" => package.checksum = value,
            _ => {}
        }
    }
    packages
}

/// Numbers, and whether it is a finished release; `None` when it is not a version.
fn parse(version: &str) -> Option<([u64; 3], bool)> {
    let bare = version.split('+').next()?;
    let (numbers, is_release) = bare
        .split_once('-')
        .map_or((bare, true), |(numbers, _)| (numbers, false));
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    let parsed = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some((parsed, is_release))
}

/// Semantic order; a pre-release comes before its release. `None` when one of them is not a version.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    Some(parse(a)?.cmp(&parse(b)?))
}

/// What is wrong with `lock`, in the order of its packages.
fn findings(lock: &str, rows: &[Row]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages(lock) {
        let Package {
            line,
            name,
            version,
            source,
            checksum,
        } = &package;
        let mut found =
            |what: String| findings.push(format!("Cargo.lock:{line}: {name} {version} {what}"));
        for (_, ask, why) in rows.iter().filter(|(row, ..)| row == name) {
            match ask {
                AtLeast(least) if compare(version, least).is_none_or(Ordering::is_lt) => {
                    found(format!(
                        "is below {least} ({why}): run `cargo update -p {name}@{version}`, or raise what pulls it in"
                    ));
                }
                Exactly(exact) if version != exact => {
                    found(format!("is not {exact} ({why}): pin it in Cargo.toml"))
                }
                Absent => found(format!(
                    "is in the tree ({why}): turn off the feature that pulls it in"
                )),
                AtLeast(_) | Exactly(_) => {}
            }
        }
        if name != "shoal" && (source != REGISTRY || checksum.is_empty()) {
            found("does not come from crates.io: depend on a published version".to_owned());
        }
    }
    findings
}

#[test]
fn every_locked_version_is_free_of_known_faults() {
    let path = crate::tidy::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(path).expect("the lock file can be read");
    let found = findings(&lock, ROWS);
    assert!(
        found.is_empty(),
        "{} found:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn the_lock_file_is_read_whole() {
    let path = crate::tidy::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(path).expect("the lock file can be read");
    let packages = packages(&lock);
    assert_eq!(
        packages.len(),
        lock.lines()
            .filter(|line| line.starts_with("name = "))
            .count()
    );
    for package in &packages {
        assert!(
            parse(&package.version).is_some(),
            "{} has no version",
            package.name
        );
    }
    for required in REQUIRED {
        assert!(
            packages.iter().any(|package| package.name == *required),
            "`{required}` is not locked"
        );
    }
}

#[test]
fn every_row_fires_on_a_worse_version_and_is_quiet_on_the_asked_one() {
    for row @ (name, ask, _) in ROWS {
        let (good, bad) = match ask {
            AtLeast(least) => (Some(*least), below(least)),
            Exactly(exact) => (Some(*exact), "3.0.0".to_owned()),
            Absent => (None, "1.0.0".to_owned()),
        };
        let found = findings(&lock_of(&[(name, &bad)]), &[*row]);
        assert_eq!(found.len(), 1, "{name} {bad}: {found:?}");
        assert!(
            found[0].starts_with(&format!("Cargo.lock:6: {name} {bad} is ")),
            "{found:?}"
        );
        if let Some(good) = good {
            assert_eq!(findings(&lock_of(&[(name, good)]), ROWS), [""; 0]);
        }
    }
}

#[test]
fn one_old_copy_beside_a_new_one_is_found() {
    let lock = lock_of(&[
        ("yamux", "0.12.1"),
        ("yamux", "0.13.10"),
        ("yamux", "0.14.1"),
        ("yamux", "1.0.0"),
    ]);
    let found = findings(&lock, ROWS);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("yamux 0.12.1") && found[1].contains("yamux 0.13.10"),
        "{found:?}"
    );
}

#[test]
fn crates_without_a_row_and_our_own_are_quiet() {
    let ours = "[[package]]\nname = \"shoal\"\nversion = \"0.1.0\"\ndependencies = [\n \"yamux 0.12.0\",\n]\n";
    let patch = "\n[[patch.unused]]\nname = \"yamux\"\nversion = \"0.12.0\"\n";
    assert_eq!(
        findings(
            &format!("{ours}{}{patch}", lock_of(&[("yamux-extra", "0.1.0")])),
            ROWS
        ),
        [""; 0]
    );
}

#[test]
fn a_package_from_elsewhere_is_found() {
    for source in [
        "",
        "source = \"git+https://example.org/a#0\"\n",
        "source = \"registry+https://example.org/index\"\nchecksum = \"00\"\n",
    ] {
        let lock = format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{source}");
        assert_eq!(
            findings(&lock, ROWS),
            ["Cargo.lock:3: a 1.0.0 does not come from crates.io: depend on a published version"]
        );
    }
}

#[test]
fn versions_are_compared_as_numbers_and_pre_releases_come_first() {
    let check = |a, b, expected| assert_eq!(compare(a, b), Some(expected), "{a} and {b}");
    check("0.9.10", "0.9.5", Ordering::Greater);
    check("0.10.0", "0.9.5", Ordering::Greater);
    check("1.0.0", "1.0.0+build.7", Ordering::Equal);
    check("1.0.0-alpha", "1.0.0", Ordering::Less);
    check("1.0.1-alpha", "1.0.0", Ordering::Greater);
    check("0.17.9", "0.17.12", Ordering::Less);
    for broken in ["", "1", "1.2", "1.2.x", "1.2.3.4", "-1.2.3"] {
        assert_eq!(compare(broken, "1.0.0"), None, "{broken}");
    }
}

/// A lock file of these packages; the first one's version stands on line 6.
fn lock_of(versions: &[(&str, &str)]) -> String {
    let package = |(name, version): &(&str, &str)| {
        format!(
            "\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{REGISTRY}\"\nchecksum = \"00\"\n"
        )
    };
    format!(
        "# made up\nversion = 4\n{}",
        versions.iter().map(package).collect::<String>()
    )
}

/// The version just below `version`.
fn below(version: &str) -> String {
    let ([major, minor, patch], _) = parse(version).expect("rows hold versions");
    match (minor, patch) {
        (_, 1..) => format!("{major}.{minor}.{}", patch - 1),
        (1.., 0) => format!("{major}.{}.99", minor - 1),
        (0, 0) => format!("{}.99.99", major - 1),
    }
}
