//! Memory limits of Linux' control groups, versions 1 and 2: containers and services have them.

use std::path::{Path, PathBuf};

use super::proc_file::number;

/// The bytes that this process can still allocate in its control groups, with the file system at
/// `root`; `None` without a limit. Memory that holds files counts as available: the kernel frees it
/// on demand.
pub(super) fn available(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let left = groups.lines().flat_map(|line| {
        // `0::/path` in version 2, `4:memory:/path` in version 1.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next(), fields.next().unwrap_or_default());
        let version = match controllers {
            Some("") => Some(&VERSION_2),
            Some(names) if names.split(',').any(|name| name == "memory") => Some(&VERSION_1),
            _ => None,
        };
        let path = Path::new(path.trim_start_matches('/'));
        version
            .into_iter()
            .flat_map(move |version| version.left(root, path))
    });
    left.min()
}

/// The files of a version.
struct Version {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Keys of `memory.stat` for memory that holds files, children included.
    files: [&'static str; 2],
}

const VERSION_1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_active_file", "total_inactive_file"],
};

const VERSION_2: Version = Version {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    files: ["active_file", "inactive_file"],
};

impl Version {
    /// The bytes left in the group `path` and each group above it that has a limit. In a container,
    /// its own group may be at the mount point, and the path does not exist.
    fn left(&self, root: &Path, path: &Path) -> Vec<u64> {
        let groups = path
            .ancestors()
            .map(|group| root.join(self.mount).join(group));
        groups.filter_map(|group| self.left_in(&group)).collect()
    }

    fn left_in(&self, group: &Path) -> Option<u64> {
        let read = |name: &str| -> Option<u64> {
            let text = std::fs::read_to_string(group.join(name)).ok()?;
            // `max` without a limit.
            text.trim().parse().ok()
        };
        // Version 1 has the largest multiple of a page without a limit.
        let limit = read(self.limit).filter(|limit| *limit < 1 << 60)?;
        let usage = read(self.usage)?;
        let statistics: PathBuf = group.join("memory.stat");
        let files = self.files.iter().filter_map(|key| number(&statistics, key));
        Some(limit.saturating_sub(usage.saturating_sub(files.sum())))
    }
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    fn write(root: &TempDir, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn version_2_counts_every_group_above_the_process() {
        let root = TempDir::new();
        assert_eq!(available(&root), None);
        write(
            &root,
            &[
                ("proc/self/cgroup", "0::/system/job\n"),
                ("sys/fs/cgroup/system/job/memory.max", "max\n"),
                ("sys/fs/cgroup/system/job/memory.current", "400\n"),
            ],
        );
        assert_eq!(available(&root), None);
        write(
            &root,
            &[
                ("sys/fs/cgroup/system/memory.max", "1000\n"),
                ("sys/fs/cgroup/system/memory.current", "700\n"),
                (
                    "sys/fs/cgroup/system/memory.stat",
                    "anon 450\nactive_file 50\ninactive_file 200\n",
                ),
            ],
        );
        assert_eq!(available(&root), Some(550));
    }

    #[test]
    fn version_1_counts_the_group_at_the_mount_point_of_a_container() {
        let root = TempDir::new();
        write(
            &root,
            &[
                ("proc/self/cgroup", "5:cpu,memory:/docker/abc\n0::/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1200\n"),
            ],
        );
        assert_eq!(available(&root), Some(0));
        write(
            &root,
            &[(
                "sys/fs/cgroup/memory/memory.stat",
                "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 100\n",
            )],
        );
        assert_eq!(available(&root), Some(200));
    }
}
