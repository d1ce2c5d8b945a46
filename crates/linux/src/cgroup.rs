//! How many processes of a memory cgroup the kernel has killed for lack of memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the memory controller's files are. It stays the same while the system runs, also for a process
/// that is moved to another cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryController {
    version: Version,
    mount_point: PathBuf,
    /// The cgroup that lies at the mount point. Not `/` where a container sees its host's paths.
    root: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The kernel's count for one cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKills {
    /// The cgroup: a hash of where it lies, never 0. The same in every process and every build.
    pub cgroup: u64,
    /// Its processes that were killed; in version 2 those of the cgroups below it, too.
    pub count: u64,
}

impl MemoryController {
    /// Looks where the memory controller is mounted; none if this process sees none.
    pub fn find() -> Option<MemoryController> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        MemoryController::find_in(&own, &mounts)
    }

    /// `own` is a `/proc/PID/cgroup`, which says the version, `mounts` a `/proc/PID/mountinfo`.
    fn find_in(own: &str, mounts: &str) -> Option<MemoryController> {
        let version = match path_of(Version::V1, own) {
            Some(_) => Version::V1,
            None => path_of(Version::V2, own).map(|_| Version::V2)?,
        };
        mounts.lines().find_map(|line| {
            // 36 35 98:0 /root /mount/point rw,noatime shared:1 - cgroup cgroup rw,memory
            let (mount, system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, mount_point) = (mount.next()?, mount.next()?);
            let mut system = system.split(' ');
            let (kind, options) = (system.next()?, system.nth(1)?);
            let fits = match version {
                Version::V1 => kind == "cgroup" && options.split(',').any(|o| o == "memory"),
                Version::V2 => kind == "cgroup2",
            };
            fits.then(|| MemoryController {
                version,
                mount_point: unescape(mount_point).into(),
                root: unescape(root),
            })
        })
    }

    /// The kernel's count for the cgroup that this process is in now; none if it can't be read.
    pub fn oom_kills(&self) -> Option<OomKills> {
        self.oom_kills_by(|path| fs::read_to_string(path))
    }

    fn oom_kills_by(&self, read: impl Fn(&Path) -> io::Result<String>) -> Option<OomKills> {
        let file = self.file(&read(Path::new("/proc/self/cgroup")).ok()?)?;
        let count = count_in(&read(&file).ok()?)?;
        Some(OomKills { cgroup: hash(&file), count })
    }

    /// The file of counts for the cgroup that a `/proc/PID/cgroup` says.
    fn file(&self, own: &str) -> Option<PathBuf> {
        let path = path_of(self.version, own)?;
        let below = match self.root.as_str() {
            "/" => path,
            // Not a part of a name: /a/b is not below /a/bc.
            root => {
                path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?
            }
        };
        let name = match self.version {
            // oom_kill is there since Linux 4.13, in both.
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Some(self.mount_point.join(below.trim_start_matches('/')).join(name))
    }
}

/// The path of a process's cgroup: `4:memory:/path` in version 1, `0::/path` in version 2. With both,
/// memory is in only one.
fn path_of(version: Version, own: &str) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let fits = match version {
            Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
            Version::V2 => controllers.is_empty(),
        };
        fits.then_some(path)
    })
}

fn count_in(counts: &str) -> Option<u64> {
    counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// mountinfo writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_string(), |text, (code, character)| text.replace(code, character))
}

/// FNV-1a, and never 0.
fn hash(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:3 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const V1: &str = "8:pids:/x\n4:memory:/a/b\n1:name=systemd:/y\n0::/z\n";
    const V2_MOUNTS: &str =
        "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn file(own: &str, mounts: &str) -> Option<String> {
        let file = MemoryController::find_in(own, mounts)?.file(own)?;
        Some(file.to_str().expect("it is text").to_string())
    }

    #[test]
    fn both_versions_and_both_at_once() {
        assert_eq!(
            file(V1, V1_MOUNTS).as_deref(),
            Some("/sys/fs/cgroup/memory/a/b/memory.oom_control")
        );
        assert_eq!(
            file("0::/a:b/c\n", V2_MOUNTS).as_deref(),
            Some("/sys/fs/cgroup/a:b/c/memory.events")
        );
        assert_eq!(file("0::/\n", V2_MOUNTS).as_deref(), Some("/sys/fs/cgroup/memory.events"));
        // Version 1's controllers without memory: it is in version 2.
        let own = "2:cpu,cpuacct:/x\n0::/z\n";
        assert_eq!(file(own, V1_MOUNTS).as_deref(), Some("/sys/fs/cgroup/unified/z/memory.events"));
        assert_eq!(file("", V2_MOUNTS), None);
        assert_eq!(file(V1, V2_MOUNTS), None);
        assert_eq!(file(V1, "nonsense\n- - -\n"), None);
    }

    #[test]
    fn a_container_that_sees_the_paths_of_its_host() {
        let mounts = "9 8 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let place = |path: &str| file(&format!("4:memory:{path}\n"), mounts);
        let at = |dir: &str| Some(format!("/sys/fs/cgroup/memory{dir}/memory.oom_control"));
        assert_eq!(place("/docker/ab"), at(""));
        assert_eq!(place("/docker/ab/c"), at("/c"));
        assert_eq!(place("/docker/abc"), None);
        assert_eq!(place("/"), None);
    }

    #[test]
    fn a_mount_point_with_a_space() {
        let mounts = "29 22 0:26 / /my\\040cgroups\\134 rw - cgroup2 none rw\n";
        assert_eq!(file("0::/a\n", mounts).as_deref(), Some("/my cgroups\\/a/memory.events"));
    }

    #[test]
    fn the_count() {
        assert_eq!(count_in("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        let events = "low 0\nhigh 0\nmax 9\noom 8\noom_kill 7\noom_group_kill 6\n";
        assert_eq!(count_in(events), Some(7));
        assert_eq!(count_in("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    /// The count that a process sees whose cgroup is `own`, and whose file of counts has this text, or
    /// can't be read.
    fn kills(own: &str, mounts: &str, counts: io::Result<&str>) -> Option<OomKills> {
        let memory = MemoryController::find_in(own, mounts).expect("there is one");
        memory.oom_kills_by(|path| match (path.to_str(), &counts) {
            (Some("/proc/self/cgroup"), _) => Ok(own.to_string()),
            (_, Ok(counts)) => Ok(counts.to_string()),
            (_, Err(error)) => Err(error.kind().into()),
        })
    }

    #[test]
    fn the_answers_of_the_kernel() {
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        let v1 = Ok("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
        let v2 = Ok("low 0\nhigh 0\nmax 9\noom 5\noom_kill 4\n");
        assert_eq!(kills(V1, V1_MOUNTS, v1).map(|kills| kills.count), Some(3));
        assert_eq!(kills("0::/a\n", V2_MOUNTS, v2).map(|kills| kills.count), Some(4));
        // The root cgroup of version 2 has no such file, nor has one that was removed.
        assert_eq!(kills("0::/\n", V2_MOUNTS, failed(libc::ENOENT)), None);
        assert_eq!(kills("0::/a (deleted)\n", V2_MOUNTS, failed(libc::ENOENT)), None);
        assert_eq!(kills("0::/a\n", V2_MOUNTS, failed(libc::EACCES)), None);
        // The cgroup was removed after the file had been opened.
        assert_eq!(kills("0::/a\n", V2_MOUNTS, failed(libc::ENODEV)), None);
        // Before Linux 4.13 the kernel does not count.
        assert_eq!(kills(V1, V1_MOUNTS, Ok("oom_kill_disable 0\nunder_oom 0\n")), None);
        for nonsense in ["", "oom_kill", "oom_kill \n", "oom_kill -1\n", "oom_kill many\n"] {
            assert_eq!(kills("0::/a\n", V2_MOUNTS, Ok(nonsense)), None, "{nonsense:?}");
        }
    }

    #[test]
    fn who_is_moved_has_another_cgroup() {
        let memory = MemoryController::find_in("0::/a\n", V2_MOUNTS).expect("there is one");
        let seen = |own: &'static str| {
            memory.oom_kills_by(|path| match path.to_str() {
                Some("/proc/self/cgroup") => Ok(own.to_string()),
                _ => Ok("oom_kill 1\n".to_string()),
            })
        };
        let cgroup = |own| seen(own).map(|kills| kills.cgroup).expect("it is there");
        assert_ne!(cgroup("0::/a\n"), cgroup("0::/b\n"));
        assert_eq!(cgroup("0::/a\n"), cgroup("0::/a\n"));
        // Version 1's memory controller was mounted since: this process sees it in version 2 no more.
        assert_eq!(seen("4:memory:/a\n"), None);
    }

    #[test]
    fn lines_that_are_not_whole_are_passed_over() {
        let mounts = format!("\n29 22\n30 22 0:26 / - \n31 22 0:26 / /x rw - cgroup2\n{V2_MOUNTS}");
        let own = "\n0\n0:\n0::/a\n";
        assert_eq!(file(own, &mounts).as_deref(), Some("/sys/fs/cgroup/a/memory.events"));
    }

    #[test]
    fn cgroups_are_told_apart() {
        assert_ne!(hash(Path::new("/a")), hash(Path::new("/b")));
        // The same for ever: processes of two builds share a zone.
        assert_eq!(hash(Path::new("a")), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn this_process() {
        let Some(kills) = MemoryController::find().and_then(|memory| memory.oom_kills()) else {
            // The root cgroup of version 2 has no counts.
            return;
        };
        assert_ne!(kills.cgroup, 0);
    }
}
