//! Somebody who exchanges a folder of the target for a link to the outside, again and again, while a fetch works there.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::storage::beneath::{Beneath, Replace};

/// At least so many swaps are made.
const SWAPS: usize = 100_000;

/// What must be seen of each outcome before the swapper stops: a machine with few processors may let one of the two threads run alone for long.
const OUTCOMES: u64 = 100;

/// It stops here at the latest, and the test fails.
const SWAPS_MAX: usize = 100 * SWAPS;

#[test]
fn a_hundred_thousand_swaps_lead_nothing_outside() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::create_dir_all(root.join("parts")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), b"secret").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    let (over, enough) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut made, mut refused) = (0_u64, 0_u64);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (sub, link) = (root.join("sub"), root.join("link"));
            for swap in 0..SWAPS_MAX {
                if swap >= SWAPS && enough.load(Ordering::Relaxed) {
                    break;
                }
                renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        let parts = Beneath::open(&root.join("parts")).unwrap().unwrap();
        while !over.load(Ordering::Relaxed) {
            // Anew each time: folders that are kept open are safe anyhow.
            let target = Beneath::open(&root).unwrap().unwrap();
            let part = "part";
            File::create(root.join("parts").join(part)).unwrap();
            let secret = Path::new("sub/secret");
            assert!(target.open_file(secret).is_err());
            assert!(!matches!(target.stat(secret), Ok(Some(_))));
            assert!(target.make_executable(secret).is_err());
            let outcomes = [
                target.make_empty_file(Path::new("sub/empty"), true, Replace::Allowed),
                target.make_link(Path::new("sub/to"), "empty", Replace::Allowed),
                target.make_folder(Path::new("sub/folder")),
                target.publish(parts.dir(), part, Path::new("sub/file"), Replace::Allowed),
                target.take_back(Path::new("sub/secret"), parts.dir(), "taken"),
            ];
            assert!(outcomes[4].is_err());
            for outcome in &outcomes[..4] {
                *if outcome.is_ok() {
                    &mut made
                } else {
                    &mut refused
                } += 1;
            }
            if made > OUTCOMES && refused > OUTCOMES {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
    assert!(
        made > OUTCOMES && refused > OUTCOMES,
        "{made} made, {refused} refused"
    );
    let there: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert_eq!(there.len(), 1, "{there:?}");
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
}
