//! Code as people ship it: a zip file, unpacked with suspicion. It may come from anywhere, so nothing of it may lie
//! outside the folder it is unpacked into, or fill the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

use zip::{ZipArchive, read::ZipFile, result::ZipError};

use crate::version::is_left_out;

/// Most bytes that one may have when it is unpacked.
const MOST: u64 = 512 << 20;
/// Most files and folders.
const MOST_ENTRIES: usize = 50_000;

/// Why an archive is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArchive {
    #[error("it is no zip file that can be read ({0}); make it anew: zip -r")]
    Broken(String),
    #[error("`{0}` in it leads out of its folder; make it anew from within the folder")]
    Outside(String),
    #[error("`{0}` in it is a link; make it anew without `-y`, so that it has what links lead to")]
    Link(String),
    #[error("it has more than {MOST_ENTRIES} files; leave out what is not needed, or name a folder")]
    Many,
    #[error("it is over {} MiB when it is unpacked; leave out what is not needed, or name a folder", MOST >> 20)]
    Large,
    #[error("it cannot be unpacked to {}: {reason}", place.display())]
    Disk { place: PathBuf, reason: String },
}

/// Whether code is in an archive.
pub(crate) fn is_archive(code: &Path) -> bool {
    code.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip")) && code.is_file()
}

/// Its files, each with whether it can be executed.
pub(crate) fn files(archive: &Path) -> Result<Vec<(PathBuf, bool)>, BadArchive> {
    let mut archive = open(archive)?;
    let mut files = Vec::new();
    for n in 0..archive.len() {
        let entry = archive.by_index_raw(n).map_err(broken)?;
        if !entry.is_dir() {
            files.push((place_of(&entry)?, is_executable(&entry)));
        }
    }
    Ok(files)
}

/// Unpacks it into a folder. Blocks. What there is of it after an error is worth nothing.
pub(crate) fn unpack(archive: &Path, folder: &Path) -> Result<(), BadArchive> {
    unpack_within(archive, folder, MOST)
}

fn unpack_within(archive: &Path, folder: &Path, most: u64) -> Result<(), BadArchive> {
    let mut archive = open(archive)?;
    let mut left = most;
    for n in 0..archive.len() {
        let mut entry = archive.by_index(n).map_err(broken)?;
        let inside = place_of(&entry)?;
        if inside.iter().any(is_left_out) {
            continue;
        }
        let place = folder.join(inside);
        let failed = |error: &io::Error| BadArchive::Disk { place: place.clone(), reason: error.to_string() };
        let parent = if entry.is_dir() { &*place } else { place.parent().unwrap_or(folder) };
        fs::create_dir_all(parent).map_err(|error| failed(&error))?;
        if entry.is_dir() {
            continue;
        }
        let mode = if is_executable(&entry) { 0o755 } else { 0o644 };
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&place);
        let mut file = made.map_err(|error| failed(&error))?;
        // what its head says of its size may be a lie
        let mut content = entry.by_ref().take(left + 1);
        let written = io::copy(&mut content, &mut file).map_err(|error| match error.raw_os_error() {
            Some(_) => failed(&error),
            None => BadArchive::Broken(error.to_string()),
        })?;
        left = left.checked_sub(written).ok_or(BadArchive::Large)?;
    }
    Ok(())
}

fn open(archive: &Path) -> Result<ZipArchive<File>, BadArchive> {
    let file = File::open(archive).map_err(|error| BadArchive::Broken(error.to_string()))?;
    let archive = ZipArchive::new(file).map_err(broken)?;
    if archive.len() > MOST_ENTRIES { Err(BadArchive::Many) } else { Ok(archive) }
}

/// Where an entry belongs, below the folder.
fn place_of<R: Read>(entry: &ZipFile<'_, R>) -> Result<PathBuf, BadArchive> {
    let name = entry.name().map_err(broken)?.into_owned();
    if entry.is_symlink() {
        return Err(BadArchive::Link(name));
    }
    let path = Path::new(&name);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside || name.contains(['\\', '\0']) {
        return Err(BadArchive::Outside(name));
    }
    Ok(path.components().filter(|part| *part != Component::CurDir).collect())
}

fn is_executable<R: Read>(entry: &ZipFile<'_, R>) -> bool {
    entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0)
}

#[allow(clippy::needless_pass_by_value, reason = "given to map_err")]
fn broken(error: ZipError) -> BadArchive {
    BadArchive::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt};

    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// An archive with what `write` puts into it, in a folder of its own.
    fn archive(write: impl FnOnce(&mut ZipWriter<File>)) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        write(&mut writer);
        writer.finish().unwrap();
        (folder, path)
    }

    fn options() -> SimpleFileOptions {
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)
    }

    fn file(writer: &mut ZipWriter<File>, name: &str, content: &[u8]) {
        writer.start_file(name, options()).unwrap();
        writer.write_all(content).unwrap();
    }

    fn unpacked(path: &Path) -> Result<PathBuf, BadArchive> {
        let folder = path.with_extension("out");
        unpack(path, &folder).map(|()| folder)
    }

    #[test]
    fn files_lie_where_they_were_and_programs_can_be_executed() {
        let (_folder, path) = archive(|writer| {
            file(writer, "./app.py", b"one");
            writer.add_directory("empty/", options()).unwrap();
            file(writer, "lib/deep/a.py", b"two");
            file(writer, "lib/__pycache__/a.cpython-311.pyc", b"x");
            writer.start_file("bootstrap", options().unix_permissions(0o700)).unwrap();
        });
        let folder = unpacked(&path).unwrap();
        assert_eq!(fs::read(folder.join("app.py")).unwrap(), b"one");
        assert_eq!(fs::read(folder.join("lib/deep/a.py")).unwrap(), b"two");
        assert!(!folder.join("lib/__pycache__").exists());
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("bootstrap") & 0o111 != 0, mode("app.py") & 0o111), (true, 0));
        assert_eq!(files(&path).unwrap().first(), Some(&("app.py".into(), false)));
    }

    #[test]
    fn nothing_is_unpacked_beside_the_folder() {
        for name in ["../out", "a/../../out", "/tmp/out", "a\\..\\out", "lib/../app.py"] {
            let (_folder, path) = archive(|writer| file(writer, name, b"x"));
            assert_eq!(unpacked(&path), Err(BadArchive::Outside(name.to_owned())));
            assert_eq!(files(&path), Err(BadArchive::Outside(name.to_owned())));
        }
        let (_folder, path) = archive(|writer| writer.add_symlink("a", "/etc", options()).unwrap());
        assert_eq!(unpacked(&path), Err(BadArchive::Link("a".to_owned())));
    }

    #[test]
    fn what_is_small_and_becomes_large_is_refused() {
        let (folder, path) = archive(|writer| {
            file(writer, "app.py", b"one");
            file(writer, "zeros", &vec![0; 1 << 20]);
        });
        assert!(fs::metadata(&path).unwrap().len() < 10_000, "it is small");
        let to = folder.path().join("out");
        assert_eq!(unpack_within(&path, &to, 1 << 20), Err(BadArchive::Large));
        assert!(fs::metadata(to.join("zeros")).unwrap().len() <= 1 << 20);
        assert_eq!(unpack_within(&path, &to, (1 << 20) + 3), Ok(()));
    }

    #[test]
    fn an_archive_that_is_cut_or_damaged_is_said_to_be_no_archive() {
        let (_folder, path) = archive(|writer| file(writer, "app.py", &[7; 5000]));
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[40] ^= 0xff;
        for bytes in [&whole[..whole.len() - 30], b"no archive", b"", &damaged] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(unpacked(&path), Err(BadArchive::Broken(_))), "{:?}", unpacked(&path));
        }
    }
}
