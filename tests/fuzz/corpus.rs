//! The committed inputs of every target, and changes of them drawn from a fixed seed, as a plain test.
//!
//! `SHOAL_FUZZ_CHANGES` is how many changes are made for each target; the default costs a few seconds in all.

use std::fs;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{TARGETS, Target};

/// Changed inputs for each target.
const CHANGES: usize = 1_500;

/// Longest input that is made, in bytes.
const LEN_MAX: usize = 4_096;

/// Largest committed input and most of them, so that the folder stays small.
const FILE_LEN_MAX: usize = 2_048;
const FILES_MAX: usize = 250;

fn folder(target: &str) -> PathBuf {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus");
    PathBuf::from(here).join(target)
}

/// The committed inputs of a target in the order of their names.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(folder(target))
        .expect("every target has a folder of inputs")
        .map(|file| {
            let file = file.expect("the folder can be read");
            let name = file.file_name().to_string_lossy().into_owned();
            (name, fs::read(file.path()).expect("the file can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}

/// One to four of the changes that libFuzzer makes as well.
fn change(random: &mut StdRng, input: &mut Vec<u8>, others: &[(String, Vec<u8>)]) {
    const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 250, 251, 253, 0xff];
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len());
        let telling = TELLING[random.random_range(0..TELLING.len())];
        match random.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 if at < input.len() => input[at] = telling,
            3 => input.truncate(at),
            4 => drop(input.drain(at..end)),
            5 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            6 => {
                let other = &others[random.random_range(0..others.len())].1;
                input.splice(end.., other.iter().copied().skip(at));
            }
            _ => input.insert(at, telling),
        }
    }
    input.truncate(LEN_MAX);
}

/// Whether every input of a target, and every change of one, keeps its promises; says which does not.
fn holds(name: &str, target: Target) -> bool {
    let inputs = inputs(name);
    let count = inputs.len();
    assert!((1..=FILES_MAX).contains(&count), "{name}: {count}");
    let broken = |what: &str, input: &[u8]| {
        let is_broken = std::panic::catch_unwind(|| target(input)).is_err();
        if is_broken {
            let input = data_encoding::HEXLOWER.encode(input);
            eprintln!("`{name}` breaks a promise at {what}: {input}");
        }
        is_broken
    };
    for (file, input) in &inputs {
        let len = input.len();
        assert!(len <= FILE_LEN_MAX, "{name}/{file}: {len} bytes");
        if broken(file, input) {
            return false;
        }
    }
    let changes = std::env::var("SHOAL_FUZZ_CHANGES").ok();
    let changes = changes.map_or(CHANGES, |count| count.parse().expect("a number"));
    let mut random = StdRng::seed_from_u64(name.len() as u64);
    (0..changes).all(|number| {
        let mut input = inputs[number % inputs.len()].1.clone();
        change(&mut random, &mut input, &inputs);
        !broken("a change", &input)
    })
}

#[test]
fn what_anybody_may_send_breaks_no_promise_of_a_decoder() {
    let broken = TARGETS
        .iter()
        .filter(|(name, target)| !holds(name, *target));
    let broken: Vec<&str> = broken.map(|(name, _)| *name).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target() {
    let above = folder("control")
        .parent()
        .expect("the folder above")
        .to_owned();
    for entry in fs::read_dir(above).expect("the folder can be read") {
        let name = entry.expect("the folder can be read").file_name();
        assert!(
            TARGETS.iter().any(|(known, _)| *known == name),
            "{}",
            name.display()
        );
    }
}

#[test]
fn every_target_is_a_program_for_libfuzzer() {
    let here = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz"));
    let package = fs::read_to_string(here.join("Cargo.toml")).expect("the package beside us");
    let package: toml::Table = package.parse().expect("a manifest of cargo");
    let named = |bin: &toml::Value| bin["name"].as_str().expect("a name").to_owned();
    let programs = package["bin"].as_array().expect("a list");
    let programs: Vec<String> = programs.iter().map(named).collect();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(programs, names);
    for name in names {
        let program = here.join("fuzz_targets").join(name).with_extension("rs");
        let program = fs::read_to_string(program).expect("the program of a target");
        assert!(
            program.contains(&format!("run(\"{name}\", data)")),
            "{program}"
        );
    }
}
