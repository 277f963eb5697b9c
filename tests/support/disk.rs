//! Small file systems of their own, so that a disk can be full for real. Needs root and `mount`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Place;

/// A mounted file system; gone when dropped.
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// In memory, of `len` bytes.
    ///
    /// `None` when nothing can be mounted here; the test is counted as skipped.
    pub fn in_memory(test: &str, place: &Place, len: u64) -> Option<Self> {
        let root = place.folder("tmpfs");
        let size = format!("size={len}");
        Self::mounted(test, root, &["-t", "tmpfs", "-o", &size, "tmpfs"])
    }

    /// ext4 in a file of `len` bytes, all of it for everybody.
    ///
    /// `None` when nothing can be mounted here; the test is counted as skipped.
    pub fn ext4(test: &str, place: &Place, len: u64) -> Option<Self> {
        let image = place.path("ext4.img");
        fs::File::create(&image).unwrap().set_len(len).unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image)
            .output();
        match made {
            Ok(made) if made.status.success() => {}
            made => {
                super::skip(test, &format!("mkfs.ext4: {made:?}"));
                return None;
            }
        }
        let image = image.to_str().unwrap();
        Self::mounted(test, place.folder("ext4"), &["-o", "loop", image])
    }

    fn mounted(test: &str, root: PathBuf, args: &[&str]) -> Option<Self> {
        match Command::new("mount").args(args).arg(&root).output() {
            Ok(mounted) if mounted.status.success() => Some(Self { root }),
            mounted => {
                super::skip(test, &format!("mount: {mounted:?}"));
                None
            }
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes every free byte; gives the file that holds them.
    pub fn fill(&self) -> PathBuf {
        let path = self.root.join("filler");
        let mut filler = fs::File::create(&path).unwrap();
        let block = vec![1; 64 * 1024];
        let filled = loop {
            if let Err(error) = std::io::Write::write_all(&mut filler, &block) {
                break error;
            }
        };
        assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull, "{filled}");
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while a process that is being killed still has it open.
        let unmounted = Command::new("umount").arg("-l").arg(&self.root).status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success());
        }
    }
}
