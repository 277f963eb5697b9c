//! The project keeps its own shape: layers, names, reachable files, live links, no leftovers.
//!
//! Each rule is a function from a [`tree::Tree`] to findings `file:line: what, and what to do instead`. Here they
//! run over the real tree; beside each rule its own tests show, on trees of a few lines, that it fires and that it
//! stays quiet. `SHOAL_TIDY_ROOT` points them at another checkout.

mod layers;
mod lexer;
mod modules;
mod names;
mod prose;
mod pure;
mod reader;
mod source;
mod tree;

use std::path::PathBuf;

use tree::Tree;

type Rule = fn(&Tree) -> Vec<String>;

/// The folder whose files are judged.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("SHOAL_TIDY_ROOT")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

fn read_root() -> Tree {
    Tree::read(&root()).expect("the project's files can be read")
}

/// Fails with every finding of `rule` over the real tree.
fn holds(rule: Rule) {
    let findings = rule(&read_root());
    assert!(
        findings.is_empty(),
        "{} found:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

/// `rule` over a made-up tree finds exactly these, in this order; each is named by its beginning.
fn check(rule: Rule, files: &[(&str, &str)], expected: &[&str]) {
    let findings = rule(&Tree::of(files));
    let all_begin = findings
        .iter()
        .zip(expected)
        .all(|(finding, beginning)| finding.starts_with(beginning));
    assert!(
        all_begin && findings.len() == expected.len(),
        "in {files:#?}\nfound {findings:#?}\nexpected {expected:#?}"
    );
}

/// `line` in the file at `path` has exactly one finding, and it begins with `what`.
fn fires(rule: Rule, path: &str, line: &str, what: &str) {
    check(
        rule,
        &[(path, &format!("//! x\n{line}"))],
        &[&format!("{path}:2: {what}")],
    );
}

/// `text` in the file at `path` has none.
fn quiet(rule: Rule, path: &str, text: &str) {
    check(rule, &[(path, text)], &[]);
}

#[test]
fn the_tree_that_is_read_is_the_whole_project() {
    let tree = read_root();
    for path in [
        "Cargo.toml",
        "Cargo.lock",
        "src/lib.rs",
        "src/main.rs",
        "tests/suite.rs",
        "tests/tidy/tree.rs",
    ] {
        assert!(
            tree.files.get(path).is_some_and(|text| !text.is_empty()),
            "`{path}` was not read"
        );
    }
    assert!(!tree.has("target"), "build output is not the project");
    let naming = source::sources(&tree, "src/")
        .filter(|source| source.names.iter().any(|name| name.segments[0] == "crate"));
    assert!(naming.count() > 0, "no file of src names another");
}

#[test]
fn arrows_between_folders_are_those_of_the_table() {
    holds(layers::arrows_outside_the_table);
}

#[test]
fn folders_do_not_import_each_other_in_a_ring() {
    holds(layers::import_cycles);
}

#[test]
fn pure_folders_name_no_clock_file_socket_thread_or_chance() {
    holds(pure::impure_names);
}

#[test]
fn maps_without_order_in_engine_and_sim_have_a_reason() {
    holds(pure::unordered_maps);
}

#[test]
fn libp2p_is_named_in_network_alone() {
    holds(names::libp2p_outside_network);
}

#[test]
fn bincode_is_named_in_encoding_alone() {
    holds(names::bincode_outside_encoding);
}

#[test]
fn only_main_exits_the_process() {
    holds(names::exits_outside_main);
}

#[test]
fn every_queue_is_bounded() {
    holds(names::unbounded_queues);
}

#[test]
fn unsafe_stands_on_the_list_or_nowhere() {
    holds(names::unlisted_unsafe);
}

#[test]
fn every_rust_file_is_reached_by_a_mod_line() {
    holds(modules::unreached_files);
}

#[test]
fn modules_lie_where_their_names_say() {
    holds(modules::path_attributes);
}

#[test]
fn every_file_of_src_has_a_header() {
    holds(modules::missing_headers);
}

#[test]
fn relative_links_in_documents_lead_somewhere() {
    holds(prose::dead_links);
}

#[test]
fn nothing_unfinished_is_left_over() {
    holds(prose::leftovers);
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    holds(prose::machine_paths);
}

#[test]
fn the_root_folder_holds_what_belongs_there() {
    holds(prose::strangers_at_the_top);
}
