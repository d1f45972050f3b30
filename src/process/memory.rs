//! How much memory this process may use, as the machine and its container have it.

use std::fs;
use std::path::{Path, PathBuf};

/// The smallest bound there is, in bytes, and what sets it; `None` where the system does not tell.
pub fn bound() -> Option<(u64, &'static str)> {
    bound_under(Path::new("/"))
}

fn bound_under(root: &Path) -> Option<(u64, &'static str)> {
    let machine = machine(root).map(|bytes| (bytes, "the machine has"));
    let group = control_group(root).map(|bytes| (bytes, "this process's control group allows"));
    machine.into_iter().chain(group).min()
}

/// proc(5), `/proc/meminfo`: `MemTotal:  24600000 kB`.
fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The smallest limit of the control groups that this process is in, and of those around them. A
/// container often sees its own group as the root: those above the mount are tried as well as those
/// named in `/proc/self/cgroup` (cgroups(7)).
fn control_group(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = root.join("sys/fs/cgroup");
    let limits = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (mount, file) = match controllers {
            "" => (mounts.clone(), "memory.max"),
            "memory" => (mounts.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let own = mount.join(path.trim_start_matches('/'));
        own.ancestors()
            .take_while(|group| group.starts_with(&mount))
            .filter_map(|group| limit(group.join(file)))
            .min()
    });
    limits.min()
}

/// `max` is no limit; neither is what version 1 says for it, which is more than any machine has.
fn limit(file: PathBuf) -> Option<u64> {
    let bytes: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 62).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<(u64, &'static str)> {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        bound_under(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       1024 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_smallest_bound_counts() {
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MACHINE]), Some((1 << 20, "the machine has")));
        let version_2 = [
            MACHINE,
            ("proc/self/cgroup", "0::/a.slice/b.service\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "5000\n"),
            ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
        ];
        assert_eq!(system(&version_2), Some((5_000, "this process's control group allows")));
        let in_a_container =
            [MACHINE, ("proc/self/cgroup", "0::/../outside\n"), ("sys/fs/cgroup/memory.max", "7000\n")];
        assert_eq!(system(&in_a_container).map(|(bytes, _)| bytes), Some(7_000));
        let version_1 = [
            MACHINE,
            ("proc/self/cgroup", "3:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "6000\n"),
        ];
        assert_eq!(system(&version_1).map(|(bytes, _)| bytes), Some(6_000));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_tells() {
        let (bytes, _) = bound().expect("Linux tells");
        assert!(bytes > 64 << 20, "{bytes}");
    }
}
