//! What of the machine every function may read: programs, libraries and settings of the system, and the folders of `PATH`.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// Its secrets are kept by their permissions, as from any program. Of `/proc` the kernel shows a function the memory,
/// environment and files of its own processes alone.
const SYSTEM: [&str; 13] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/nix/store",
    "/gnu/store",
    "/proc",
    "/sys",
    // where `/etc/resolv.conf` often leads
    "/run/systemd/resolve",
    "/run/resolvconf",
];

/// Devices that are nobody's.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// The folders, without what is in `data`, and without `project` where it lies in one of them. Blocks.
pub(crate) fn machine(data: &Path, project: Option<&Path>) -> Vec<PathBuf> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let hidden: Vec<_> = [Some(data), project].into_iter().flatten().map(real).collect();
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|folder| folder.is_absolute()).flat_map(|folder| around(&folder));
    let mut found = Vec::new();
    for folder in SYSTEM.iter().map(PathBuf::from).chain(on_path) {
        let Ok(folder) = folder.canonicalize() else { continue };
        if !found.iter().any(|known| folder.starts_with(known)) {
            clear_of(folder, &hidden, &mut found);
        }
    }
    found
}

/// A folder of programs, and what they need of its surroundings: the libraries beside it, and for the links of a version
/// manager all of its folder, in which the programs are.
pub(crate) fn around(folder: &Path) -> Vec<PathBuf> {
    let beside = |name: &str| folder.parent().map(|parent| parent.join(name));
    let more = match folder.file_name().and_then(OsStr::to_str) {
        Some("shims") => folder.parent().map(Path::to_owned),
        Some("bin") => beside("lib"),
        _ => None,
    };
    [Some(folder.to_owned()), more].into_iter().flatten().collect()
}

/// A folder, or what is in it now but not on the way to what is hidden: a rule holds for all below it.
fn clear_of(folder: PathBuf, hidden: &[PathBuf], found: &mut Vec<PathBuf>) {
    if hidden.contains(&folder) || hidden.first().is_some_and(|data| folder.starts_with(data)) {
        return;
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(&folder)) {
        found.push(folder);
        return;
    }
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        clear_of(entry.path(), hidden, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_the_project_in_it_is_taken_apart() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for folder in ["usr/bin", "usr/src/other", "usr/src/app/.data", "usr/src/app/.venv/bin"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let hidden = [root.join("usr/src/app/.data"), root.join("usr/src/app")];
        let clear = |folder: &str| {
            let mut found = Vec::new();
            clear_of(root.join(folder), &hidden, &mut found);
            found.sort();
            found
        };
        assert_eq!(clear("usr"), [root.join("usr/bin"), root.join("usr/src/other")]);
        assert_eq!(clear("usr/bin"), [root.join("usr/bin")]);
        assert_eq!(clear("usr/src/app/.venv/bin"), [root.join("usr/src/app/.venv/bin")], "it was named");
        assert!(clear("usr/src/app/.data/versions").is_empty());
    }

    #[test]
    fn the_links_of_a_version_manager_come_with_what_they_lead_to() {
        assert_eq!(around(Path::new("/m/shims")), [Path::new("/m/shims"), Path::new("/m")]);
        assert_eq!(around(Path::new("/home/me/bin")), [Path::new("/home/me/bin"), Path::new("/home/me/lib")]);
        assert_eq!(around(Path::new("/tools")), [Path::new("/tools")]);
    }
}
