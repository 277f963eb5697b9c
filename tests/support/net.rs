//! Network namespaces for tests: machines of their own on one host, joined by wires. Needs root and `ip`.

use std::cell::Cell;
use std::process::{self, Command, Stdio};

/// The namespaces of one test; all gone when dropped.
pub struct Net {
    made: Cell<u32>,
}

/// One machine.
pub struct Namespace {
    name: String,
}

impl Net {
    /// `None` when namespaces cannot be made here; the test is counted as skipped.
    pub fn new(test: &str) -> Option<Self> {
        let probe = Namespace::name_of(u32::MAX);
        let made = ip(&["netns", "add", &probe]);
        // Made or not, it is not needed.
        let _ = ip(&["netns", "del", &probe]);
        match made {
            Ok(()) => Some(Self { made: Cell::new(0) }),
            Err(reason) => {
                super::skip(test, &format!("needs root and `ip`: {reason}"));
                None
            }
        }
    }

    /// A machine with loopback and nothing else.
    pub fn namespace(&self) -> Namespace {
        let namespace = Namespace {
            name: Namespace::name_of(self.next()),
        };
        ip(&["netns", "add", &namespace.name]).unwrap();
        // Addresses are usable at once, not after a second of looking for others with the same.
        namespace.sysctl("net.ipv6.conf.default.accept_dad=0");
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// A wire between two machines; each end gets an address with its prefix length.
    pub fn join(&self, left: &Namespace, right: &Namespace, at_left: &str, at_right: &str) {
        let wire = self.next();
        let ends = [
            (left, at_left, format!("l{wire}")),
            (right, at_right, format!("r{wire}")),
        ];
        let [(.., here), (.., there)] = &ends;
        left.ip(&[
            "link",
            "add",
            here,
            "type",
            "veth",
            "peer",
            "name",
            there,
            "netns",
            &right.name,
        ]);
        for (machine, address, end) in &ends {
            machine.ip(&["address", "add", address, "dev", end]);
            machine.ip(&["link", "set", end, "up"]);
        }
    }

    /// An interface that leads nowhere: a wire with a bare end, since not every kernel has dummy interfaces. Gives its
    /// name.
    pub fn dummy(&self, machine: &Namespace, address: &str) -> String {
        let wire = self.next();
        let (name, end) = (format!("d{wire}"), format!("e{wire}"));
        machine.ip(&["link", "add", &name, "type", "veth", "peer", "name", &end]);
        machine.ip(&["address", "add", address, "dev", &name]);
        machine.ip(&["link", "set", &end, "up"]);
        machine.ip(&["link", "set", &name, "up"]);
        name
    }

    /// Takes an interface away, both ends of it.
    pub fn cut(&self, machine: &Namespace, interface: &str) {
        machine.ip(&["link", "delete", interface]);
    }

    fn next(&self) -> u32 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }
}

impl Namespace {
    fn name_of(number: u32) -> String {
        format!("shoal-{}-{number}", process::id())
    }

    /// The start of a command line that runs in this machine.
    pub fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }

    /// Runs `ip` in this machine.
    pub fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.name], args].concat()).unwrap();
    }

    fn sysctl(&self, setting: &str) {
        let (key, value) = setting.split_once('=').unwrap();
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let script = format!("echo {value} > {path} || true");
        let status = self
            .command()
            .args(["sh", "-c", &script])
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Processes in it were killed before; nothing else holds it.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("`ip {}`: {said}", args.join(" ")))
}
