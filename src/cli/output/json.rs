//! JSON lines: one object per line, the shapes that scripts read.
//!
//! Owns every field name; `schema.json` beside it says the same for machines, and a test holds the two together. Changes
//! here only ever add. Called by `output` and `trace`.
//! Source: the table of JSON lines in the product description; RFC 8259; NDJSON.

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use crate::cli::exit::Failure;
use crate::cli::settings::{Setting, Shown};
use crate::content::{Entry, EntryKind, Link, Manifest, Multiaddr, escape_hostile};
use crate::node::{Cause, Fetched, NodeEvent, Phase, ShareStatus, StallCause, Via};
use crate::storage::{IllegalName, Leftover, Skipped, shown};
use crate::tui::Picture;

/// Version of all shapes.
const VERSION: u8 = 1;

/// A line as it is written, in this order.
#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Seconds since 1970, UTC.
    ts: f64,
    #[serde(flatten)]
    body: &'a Body<'a>,
}

/// The fields of each type.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Body<'a> {
    Link {
        link: String,
        share: String,
        bytes: u64,
        files: u32,
        pieces: u32,
        folders: u32,
        entries: u32,
    },
    Listening {
        addr: String,
    },
    Peer {
        peer: String,
        addr: String,
        state: &'static str,
        via: &'static str,
        reason: Option<&'a str>,
    },
    Progress {
        phase: &'static str,
        bytes: u64,
        total: Option<u64>,
        down_per_sec: u64,
        up_per_sec: u64,
        peers: usize,
        availability: Option<f64>,
        eta_secs: Option<f64>,
    },
    Reroute {
        peer: String,
        pieces: u32,
        to: Vec<String>,
        after_ms: u128,
        cause: &'static str,
    },
    Stalled {
        cause: &'static str,
        missing: u32,
        path: Option<&'a str>,
        reason: Option<String>,
    },
    Withdrawn {
        path: &'a str,
        pieces: u32,
        reason: &'a str,
        left: u32,
    },
    Offered {
        path: &'a str,
        pieces: u32,
        left: u32,
    },
    Skipped {
        path: String,
        reason: String,
    },
    Leftover {
        path: Cow<'a, str>,
        share: String,
        name: &'a str,
        bytes: u64,
        age_secs: f64,
        removed: bool,
    },
    Unportable {
        path: &'a str,
        reason: String,
    },
    Done {
        path: Cow<'a, str>,
        bytes: u64,
        secs: f64,
        downloaded: u64,
        wasted: u64,
        uploaded: u64,
        peers: u32,
        zeros: u64,
        reused: u64,
    },
    Stopped {
        reason: &'static str,
        uploaded: u64,
    },
    File {
        path: &'a str,
        bytes: u64,
        root: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ok: Option<bool>,
    },
    Error {
        code: i32,
        message: String,
        hint: Option<&'a str>,
    },
    /// By `config show` only.
    Setting {
        key: &'a str,
        value: Value,
        source: &'static str,
        variable: &'a str,
    },
    /// In trace files only.
    Piece {
        piece: u32,
        bytes: u32,
        peer: String,
    },
}

impl<'a> Body<'a> {
    pub(super) fn link(link: &Link, manifest: &Manifest) -> Self {
        Self::Link {
            link: link.to_string(),
            share: link.share.to_string(),
            bytes: manifest.geometry().total_len(),
            files: manifest.geometry().file_count(),
            pieces: manifest.geometry().piece_count(),
            folders: manifest.folder_count(),
            entries: manifest.entry_count(),
        }
    }

    pub(super) fn listening(address: &Multiaddr) -> Self {
        Self::Listening {
            addr: address.to_string(),
        }
    }

    pub(super) fn progress(picture: &Picture<'_>) -> Self {
        let local = |phase, bytes, total, eta: Option<Duration>| Self::Progress {
            phase,
            bytes,
            total,
            down_per_sec: 0,
            up_per_sec: 0,
            peers: 0,
            availability: None,
            eta_secs: eta.map(seconds),
        };
        match picture {
            Picture::Scan { bytes, .. } => local("scan", *bytes, None, None),
            Picture::Hash {
                bytes, total, eta, ..
            } => local("hash", *bytes, Some(*total), *eta),
            Picture::Verify {
                bytes, total, eta, ..
            } => local("verify", *bytes, Some(*total), *eta),
            Picture::Share { status, .. } => Self::Progress {
                phase: phase(status.phase),
                bytes: status.bytes,
                total: status.total,
                down_per_sec: status.down_per_sec,
                up_per_sec: status.up_per_sec,
                peers: status.peers.len(),
                // Before the first manifest nobody can say.
                availability: (status.phase != Phase::Find)
                    .then(|| thousandths(status.availability)),
                eta_secs: status.eta.map(seconds),
            },
        }
    }

    /// The line for an event; `None` for those that scripts follow in other lines.
    pub(super) fn event(event: &'a NodeEvent) -> Option<Self> {
        Some(match event {
            NodeEvent::Listening { address } => Self::listening(address),
            NodeEvent::PeerConnected { peer, address, via } => Self::Peer {
                peer: peer.to_string(),
                addr: address.to_string(),
                state: "connected",
                via: reached(*via),
                reason: None,
            },
            NodeEvent::PeerLost {
                peer,
                address,
                via,
                reason,
            } => Self::Peer {
                peer: peer.to_string(),
                addr: address.to_string(),
                state: "lost",
                via: reached(*via),
                reason: Some(reason),
            },
            NodeEvent::Rerouted {
                peer,
                pieces,
                to,
                after,
                cause,
            } => Self::Reroute {
                peer: peer.to_string(),
                pieces: *pieces,
                to: to.iter().map(ToString::to_string).collect(),
                after_ms: after.as_micros().div_ceil(1000),
                cause: fault(*cause),
            },
            NodeEvent::Stalled {
                cause,
                missing,
                why,
            } => Self::Stalled {
                cause: match cause {
                    StallCause::NoPeers => "no_peers",
                    StallCause::NoHolder => "no_holder",
                    StallCause::Unreachable => "unreachable",
                },
                missing: *missing,
                path: why.as_ref().map(|why| why.path.as_str()),
                reason: why.as_ref().map(ToString::to_string),
            },
            NodeEvent::Withdrawn {
                path,
                pieces,
                reason,
                left,
                ..
            } => Self::Withdrawn {
                path,
                pieces: *pieces,
                reason,
                left: *left,
            },
            // Nothing of it is.
            NodeEvent::Offered { pieces: 0, .. } => return None,
            NodeEvent::Offered {
                path, pieces, left, ..
            } => Self::Offered {
                path,
                pieces: *pieces,
                left: *left,
            },
            NodeEvent::Described { .. }
            | NodeEvent::PieceStored { .. }
            | NodeEvent::SourceAway { .. }
            | NodeEvent::FileComplete { .. }
            | NodeEvent::PeerCompleted { .. } => return None,
        })
    }

    /// The line for a piece that arrived.
    pub(super) fn piece(event: &NodeEvent) -> Option<Self> {
        let NodeEvent::PieceStored { peer, piece, bytes } = event else {
            return None;
        };
        Some(Self::Piece {
            piece: *piece,
            bytes: *bytes,
            peer: peer.to_string(),
        })
    }

    pub(super) fn skipped(thing: &Skipped) -> Self {
        Self::Skipped {
            // Bytes that are not UTF-8 would all be the same character.
            path: shown(&thing.path),
            reason: thing.reason.to_string(),
        }
    }

    pub(super) fn leftover(leftover: &'a Leftover, now: SystemTime, is_removed: bool) -> Self {
        Self::Leftover {
            path: text(&leftover.path),
            share: leftover.share.to_string(),
            name: leftover.name.as_str(),
            bytes: leftover.bytes,
            age_secs: seconds(leftover.age(now)),
            removed: is_removed,
        }
    }

    pub(super) fn unportable(name: &'a IllegalName) -> Self {
        Self::Unportable {
            path: &name.path,
            reason: name.reason.to_string(),
        }
    }

    pub(super) fn done(fetched: &'a Fetched, status: &ShareStatus) -> Self {
        Self::Done {
            path: text(&fetched.path),
            bytes: fetched.bytes,
            secs: seconds(fetched.elapsed),
            downloaded: status.downloaded,
            wasted: status.wasted,
            uploaded: status.uploaded,
            peers: status.givers,
            zeros: status.zeros,
            reused: status.reused,
        }
    }

    /// An entry of a share; `ok` tells whether the local one is like it.
    pub(super) fn file(entry: &'a Entry, ok: Option<bool>) -> Self {
        let (bytes, root) = match &entry.kind {
            EntryKind::File { len, root, .. } => (*len, *root),
            EntryKind::Symlink { .. } | EntryKind::EmptyFolder => (0, None),
        };
        Self::File {
            path: entry.path.as_str(),
            bytes,
            root: root.map(|root| root.to_string()),
            ok,
        }
    }

    pub(super) fn error(failure: &'a Failure) -> Self {
        Self::Error {
            code: failure.code.into(),
            message: failure.one_line(),
            hint: failure.hint.as_deref(),
        }
    }

    pub(super) fn setting(setting: &'a Setting) -> Self {
        Self::Setting {
            key: &setting.key,
            value: match &setting.value {
                Shown::Unset => Value::Null,
                Shown::Switch(is_on) => Value::from(*is_on),
                Shown::Count(count) => Value::from(*count),
                Shown::Text(text) => Value::from(text.as_str()),
                Shown::List(texts) => Value::from(texts.as_slice()),
            },
            source: setting.origin.name(),
            variable: &setting.variable,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Link { .. } => "link",
            Self::Listening { .. } => "listening",
            Self::Peer { .. } => "peer",
            Self::Progress { .. } => "progress",
            Self::Reroute { .. } => "reroute",
            Self::Stalled { .. } => "stalled",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Skipped { .. } => "skipped",
            Self::Leftover { .. } => "leftover",
            Self::Unportable { .. } => "unportable",
            Self::Offered { .. } => "offered",
            Self::Done { .. } => "done",
            Self::Stopped { .. } => "stopped",
            Self::File { .. } => "file",
            Self::Error { .. } => "error",
            Self::Setting { .. } => "setting",
            Self::Piece { .. } => "piece",
        }
    }

    /// The whole line, with the new line at its end.
    pub(super) fn line(&self, at: SystemTime) -> String {
        let since = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let line = Line {
            v: VERSION,
            kind: self.kind(),
            ts: seconds(since),
            body: self,
        };
        let text = serde_json::to_string(&line).expect("keys are text and values are plain");
        harmless(&text) + "\n"
    }
}

/// JSON text that shows as it is on any terminal and reads as before: what could move or hide text becomes `\u` escapes.
/// Such characters occur in strings only, where an escape means the same.
fn harmless(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    let mut utf8 = [0; 4];
    let mut utf16 = [0; 2];
    for character in json.chars() {
        let text: &str = character.encode_utf8(&mut utf8);
        if (' '..='~').contains(&character) || escape_hostile(text) == text {
            shown.push(character);
        } else {
            for unit in character.encode_utf16(&mut utf16) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    shown
}

fn text(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

/// Seconds to the millisecond.
fn seconds(span: Duration) -> f64 {
    // Exact for some 285,000 years.
    span.as_millis() as f64 / 1000.0
}

fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Find => "find",
        Phase::Verify => "verify",
        Phase::Fetch => "fetch",
        Phase::Write => "write",
        Phase::Seed => "seed",
    }
}

fn reached(via: Via) -> &'static str {
    match via {
        Via::Local => "local",
        Via::Lan => "lan",
        Via::Direct => "direct",
    }
}

fn fault(cause: Cause) -> &'static str {
    match cause {
        Cause::Closed => "closed",
        Cause::Silent => "silent",
        Cause::Slow => "slow",
        Cause::Corrupt => "corrupt",
        Cause::Rejected => "rejected",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cli::exit::ExitCode;
    use crate::cli::output::tests::{manifest, status};
    use crate::cli::settings::Origin;
    use crate::content::PeerId;
    use crate::node::{Whose, Withheld, WithheldWhy};
    use crate::storage::{IllegalReason, SkipReason};

    const SCHEMA: &str = include_str!("schema.json");

    fn peer() -> PeerId {
        "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
            .parse()
            .expect("a peer id")
    }

    fn address() -> Multiaddr {
        "/ip4/192.168.1.5/tcp/4001".parse().expect("an address")
    }

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_000_000_250)
    }

    /// Every type of line, with the exact text.
    fn golden() -> Vec<(Body<'static>, &'static str)> {
        let leak = |event| {
            Body::event(Box::leak(Box::new(event))).expect("events of this kind have a line")
        };
        let fetched: &Fetched = Box::leak(Box::new(Fetched {
            path: PathBuf::from("down/movie.bin"),
            bytes: 1_000,
            elapsed: Duration::from_micros(29_441_999),
        }));
        let failure: &Failure = Box::leak(Box::new(
            Failure::new(ExitCode::NoPeer, "no peer").hint("start one"),
        ));
        let setting: &Setting = Box::leak(Box::new(Setting {
            key: "listen".into(),
            variable: "SHOAL_LISTEN".into(),
            value: Shown::List(vec!["a".into()]),
            origin: Origin::Variable,
        }));
        let unportable: &IllegalName = Box::leak(Box::new(IllegalName {
            path: "set/aux".into(),
            reason: IllegalReason::Device,
        }));
        let manifest = manifest();
        let leftover: &Leftover = Box::leak(Box::new(Leftover {
            path: PathBuf::from("down/.shoal-x.part"),
            share: manifest.id(),
            name: manifest.name().clone(),
            bytes: 4096,
            changed: at() - Duration::from_secs(60),
        }));
        let link = Link {
            share: manifest.id(),
            hints: None,
        };
        let status = status();
        let elapsed = Duration::ZERO;
        vec![
            (
                Body::link(&link, &manifest),
                r#"{"v":1,"type":"link","ts":1764000000.25,"link":"shoal:SHARE","share":"SHARE","bytes":0,"files":1,"pieces":0,"folders":0,"entries":1}"#,
            ),
            (
                Body::listening(&address()),
                r#"{"v":1,"type":"listening","ts":1764000000.25,"addr":"/ip4/192.168.1.5/tcp/4001"}"#,
            ),
            (
                leak(NodeEvent::PeerConnected {
                    peer: peer(),
                    address: address(),
                    via: Via::Lan,
                }),
                r#"{"v":1,"type":"peer","ts":1764000000.25,"peer":"PEER","addr":"/ip4/192.168.1.5/tcp/4001","state":"connected","via":"lan","reason":null}"#,
            ),
            (
                leak(NodeEvent::PeerLost {
                    peer: peer(),
                    address: address(),
                    via: Via::Local,
                    reason: "reset".into(),
                }),
                r#"{"v":1,"type":"peer","ts":1764000000.25,"peer":"PEER","addr":"/ip4/192.168.1.5/tcp/4001","state":"lost","via":"local","reason":"reset"}"#,
            ),
            (
                Body::progress(&Picture::Share {
                    status: &status,
                    elapsed,
                }),
                r#"{"v":1,"type":"progress","ts":1764000000.25,"phase":"fetch","bytes":600,"total":1000,"down_per_sec":80,"up_per_sec":40,"peers":0,"availability":2.419,"eta_secs":5.0}"#,
            ),
            (
                Body::progress(&Picture::Scan {
                    files: 3,
                    bytes: 77,
                }),
                r#"{"v":1,"type":"progress","ts":1764000000.25,"phase":"scan","bytes":77,"total":null,"down_per_sec":0,"up_per_sec":0,"peers":0,"availability":null,"eta_secs":null}"#,
            ),
            (
                Body::progress(&Picture::Hash {
                    bytes: 5,
                    total: 10,
                    per_sec: 2,
                    eta: Some(Duration::from_millis(2_500)),
                }),
                r#"{"v":1,"type":"progress","ts":1764000000.25,"phase":"hash","bytes":5,"total":10,"down_per_sec":0,"up_per_sec":0,"peers":0,"availability":null,"eta_secs":2.5}"#,
            ),
            (
                leak(NodeEvent::Rerouted {
                    peer: peer(),
                    pieces: 9,
                    to: vec![peer(), peer()],
                    after: Duration::from_micros(39_001),
                    cause: Cause::Closed,
                }),
                r#"{"v":1,"type":"reroute","ts":1764000000.25,"peer":"PEER","pieces":9,"to":["PEER","PEER"],"after_ms":40,"cause":"closed"}"#,
            ),
            (
                leak(NodeEvent::Stalled {
                    cause: StallCause::NoHolder,
                    missing: 12,
                    why: None,
                }),
                r#"{"v":1,"type":"stalled","ts":1764000000.25,"cause":"no_holder","missing":12,"path":null,"reason":null}"#,
            ),
            (
                leak(NodeEvent::Stalled {
                    cause: StallCause::NoHolder,
                    missing: 12,
                    why: Some(Withheld {
                        path: "a/b".into(),
                        why: WithheldWhy::Rereading,
                        whose: Whose::Peer,
                    }),
                }),
                r#"{"v":1,"type":"stalled","ts":1764000000.25,"cause":"no_holder","missing":12,"path":"a/b","reason":"the seeder's file `a/b` changed; it is being read again"}"#,
            ),
            (
                leak(NodeEvent::Withdrawn {
                    path: "set/edited".into(),
                    pieces: 128,
                    reason: "`/home/me/set/edited` changed".into(),
                    is_away: false,
                    left: 0,
                }),
                r#"{"v":1,"type":"withdrawn","ts":1764000000.25,"path":"set/edited","pieces":128,"reason":"`/home/me/set/edited` changed","left":0}"#,
            ),
            (
                leak(NodeEvent::Offered {
                    path: "set/edited".into(),
                    pieces: 127,
                    of: 128,
                    left: 127,
                }),
                r#"{"v":1,"type":"offered","ts":1764000000.25,"path":"set/edited","pieces":127,"left":127}"#,
            ),
            (
                Body::skipped(&Skipped {
                    path: PathBuf::from("set/pipe"),
                    reason: SkipReason::Special,
                }),
                r#"{"v":1,"type":"skipped","ts":1764000000.25,"path":"set/pipe","reason":"not a file, folder or link"}"#,
            ),
            (
                Body::leftover(leftover, at(), false),
                r#"{"v":1,"type":"leftover","ts":1764000000.25,"path":"down/.shoal-x.part","share":"SHARE","name":"a","bytes":4096,"age_secs":60.0,"removed":false}"#,
            ),
            (
                Body::unportable(unportable),
                r#"{"v":1,"type":"unportable","ts":1764000000.25,"path":"set/aux","reason":"device name"}"#,
            ),
            (
                Body::done(fetched, &status),
                r#"{"v":1,"type":"done","ts":1764000000.25,"path":"down/movie.bin","bytes":1000,"secs":29.441,"downloaded":610,"wasted":10,"uploaded":300,"peers":2,"zeros":0,"reused":0}"#,
            ),
            (
                Body::Stopped {
                    reason: "ratio",
                    uploaded: 300,
                },
                r#"{"v":1,"type":"stopped","ts":1764000000.25,"reason":"ratio","uploaded":300}"#,
            ),
            (
                Body::File {
                    path: "a/b",
                    bytes: 7,
                    root: Some("00ff".to_owned()),
                    ok: None,
                },
                r#"{"v":1,"type":"file","ts":1764000000.25,"path":"a/b","bytes":7,"root":"00ff"}"#,
            ),
            (
                Body::File {
                    path: "empty",
                    bytes: 0,
                    root: None,
                    ok: Some(false),
                },
                r#"{"v":1,"type":"file","ts":1764000000.25,"path":"empty","bytes":0,"root":null,"ok":false}"#,
            ),
            (
                Body::error(failure),
                r#"{"v":1,"type":"error","ts":1764000000.25,"code":3,"message":"no peer","hint":"start one"}"#,
            ),
            (
                Body::setting(setting),
                r#"{"v":1,"type":"setting","ts":1764000000.25,"key":"listen","value":["a"],"source":"variable","variable":"SHOAL_LISTEN"}"#,
            ),
            (
                Body::piece(&NodeEvent::PieceStored {
                    peer: peer(),
                    piece: 7,
                    bytes: 65_536,
                })
                .expect("a piece"),
                r#"{"v":1,"type":"piece","ts":1764000000.25,"piece":7,"bytes":65536,"peer":"PEER"}"#,
            ),
        ]
    }

    #[test]
    fn each_type_of_line_has_exactly_these_fields_in_this_order() {
        let share = manifest().id().to_string();
        for (body, expected) in golden() {
            let expected = expected
                .replace("PEER", &peer().to_string())
                .replace("SHARE", &share);
            assert_eq!(body.line(at()), expected + "\n");
        }
    }

    #[test]
    fn every_line_follows_the_schema_and_every_type_of_the_schema_has_a_line() {
        let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        let types = schema["$defs"].as_object().expect("an object per type");
        let mut seen = std::collections::BTreeSet::new();
        for (body, _) in golden() {
            let line: Value = serde_json::from_str(&body.line(at())).expect("a line is JSON");
            let kind = line["type"].as_str().expect("a type");
            seen.insert(kind.to_owned());
            follows(&line, &types[kind]);
        }
        let described: std::collections::BTreeSet<_> = types.keys().cloned().collect();
        assert_eq!(seen, described);
    }

    /// The part of JSON Schema that ours is written in: every field described, required and of a type named.
    fn follows(line: &Value, schema: &Value) {
        let fields = line.as_object().expect("a line is an object");
        let described = schema["properties"].as_object().expect("properties");
        let names =
            |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
        let mut required: Vec<_> = schema["required"]
            .as_array()
            .expect("required")
            .iter()
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect();
        required.sort();
        // Every field is required but those that a command adds.
        let found = names(fields);
        let optional = ["ok".to_owned()];
        let mut always: Vec<_> = names(described)
            .into_iter()
            .filter(|name| !optional.contains(name))
            .collect();
        always.sort();
        assert_eq!(always, required, "{line}");
        assert!(required.iter().all(|name| found.contains(name)), "{line}");
        assert!(
            found.iter().all(|name| described.contains_key(name)),
            "{line}"
        );
        for (name, value) in fields {
            let rule = &described[name];
            if let Some(constant) = rule.get("const") {
                assert_eq!(value, constant, "{name}");
            } else if let Some(allowed) = rule.get("enum") {
                assert!(
                    allowed.as_array().expect("a list").contains(value),
                    "{name}: {value}"
                );
            } else {
                let kind = match value {
                    Value::Null => "null",
                    Value::Number(number) if number.is_u64() => "integer",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Bool(_) => "boolean",
                    Value::Object(_) => "object",
                };
                let allowed: Vec<_> = match &rule["type"] {
                    Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
                    kind => kind.as_str().into_iter().collect(),
                };
                let fits =
                    allowed.contains(&kind) || (kind == "integer" && allowed.contains(&"number"));
                assert!(fits, "{name} is {kind}, not {allowed:?}");
            }
        }
    }

    #[test]
    fn hostile_text_is_escaped_and_still_the_same_text() {
        let path = "a\u{1b}[2J\n\u{7f}\u{9b}\u{202e}\u{e0041}é魚";
        let fetched = Fetched {
            path: PathBuf::from(path),
            bytes: 0,
            elapsed: Duration::ZERO,
        };
        let line = Body::done(&fetched, &status()).line(at());
        let shown = line.trim_end_matches('\n');
        assert_eq!(escape_hostile(shown), shown);
        assert!(
            shown.contains("é魚") && shown.contains("\\u202e\\udb40\\udc41"),
            "{shown}"
        );
        let read: Value = serde_json::from_str(shown).expect("JSON");
        assert_eq!(read["path"], path);
    }
}
