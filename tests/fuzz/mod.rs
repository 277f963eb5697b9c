//! Every target is a function of arbitrary bytes: it gives them to one decoder and panics when a promise is broken.
//!
//! `corpus` plays the committed inputs and changes of them, `long` inputs that are too long to be committed; how much a
//! decoder may claim is measured by `memory`. A target knows nothing of who calls it: this file is the root of the package
//! beside it as well, whose programs (`fuzz_targets`) give the same functions what libFuzzer makes; see `scripts/fuzz`.

#[cfg(test)]
mod corpus;
mod home;
#[cfg(test)]
mod long;
mod memory;
mod model;
mod pieces;
mod provider;
mod session;
mod share;
mod text;
mod wire;

/// What is done with one input.
type Target = fn(&[u8]);

/// Every target by its name, which is that of its program and of its folder in `corpus/` as well.
const TARGETS: &[(&str, Target)] = &[
    ("bitfield", pieces::bitfield),
    ("control", wire::control),
    ("data_header", wire::data_header),
    ("frame", wire::frame),
    ("hashes", pieces::hashes),
    ("info", share::info),
    ("link", text::link),
    ("manifest", share::manifest),
    ("path", text::path),
    ("peer_record", wire::peer_record),
    ("provider", provider::provider),
    ("resume_record", home::resume_record),
    ("session", session::session),
    ("settings", home::settings),
];

/// Gives `data` to the target of this name.
///
/// # Panics
/// When there is none, or when it finds a promise broken.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.expect("every program has a target of its name");
    target(data);
}
