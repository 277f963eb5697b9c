//! Small file systems of their own, so that a disk can be full for real. Needs root and `mount`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

use super::Place;

/// How long a file system may still be in use by a process that was killed.
const BUSY_MAX: Duration = Duration::from_secs(20);

/// A mounted file system; gone when dropped.
pub struct Disk {
    root: PathBuf,
    /// What `mount` was told before the root.
    args: Vec<String>,
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

    /// In memory, for this many files and folders.
    ///
    /// `None` when nothing can be mounted here; the test is counted as skipped.
    pub fn of_inodes(test: &str, place: &Place, inodes: u32) -> Option<Self> {
        let root = place.folder("inodes");
        let options = format!("nr_inodes={inodes}");
        Self::mounted(test, root, &["-t", "tmpfs", "-o", &options, "tmpfs"])
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
            Ok(mounted) if mounted.status.success() => Some(Self {
                root,
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            }),
            mounted => {
                super::skip(test, &format!("mount: {mounted:?}"));
                None
            }
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// From now on nothing reaches the disk, not even the journal that is in memory, and every call fails.
    ///
    /// Source: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, fs/ext4/ext4.h of Linux.
    #[allow(
        unsafe_code,
        reason = "a request of one file system has no safe wrapper"
    )]
    pub fn lose_power(&self) {
        const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
        const NO_JOURNAL_FLUSH: u32 = 2;
        let root = fs::File::open(&self.root).unwrap();
        // SAFETY: the request reads one number of 32 bits, and that is what is given.
        unsafe { ioctl(root, Setter::<SHUTDOWN, u32>::new(NO_JOURNAL_FLUSH)) }.unwrap();
    }

    /// Mounts it anew: what is in memory only is gone, and the journal is replayed.
    pub fn mount_again(&self) {
        let until = Instant::now() + BUSY_MAX;
        loop {
            let unmounted = Command::new("umount").arg(&self.root).output().unwrap();
            if unmounted.status.success() {
                break;
            }
            assert!(Instant::now() < until, "{unmounted:?}");
        }
        let mounted = Command::new("mount")
            .args(&self.args)
            .arg(&self.root)
            .output();
        let mounted = mounted.unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
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
