//! Reads files and folders.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    manifest::{Manifests, Reading},
    problem::{Problem, Severity},
};

/// How large one file may be.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How many files one reading may have.
const FILES_MAX: usize = 1_000;

/// Reads every YAML and JSON document of these files, and of the folders' files whose names end
/// in `.yaml`, `.yml` or `.json`, in order of their names. What cannot be read is a problem among
/// the others.
pub fn read(paths: &[PathBuf]) -> Manifests {
    let mut reading = Reading::default();
    let files = find(paths, &mut |problem| reading.problem(problem));
    for file in &files {
        match text(file) {
            Ok(text) => reading.add(&file.to_string_lossy(), &text),
            Err((message, hint)) => {
                reading.problem(problem(file, Severity::Error, message, hint));
            }
        }
    }
    reading.finish()
}

/// Every file of these paths once, with what stands in the way of the others.
fn find(paths: &[PathBuf], tell: &mut impl FnMut(Problem)) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => match folder(path) {
                Ok(found) if found.is_empty() => {
                    let message = "no file in this folder ends in .yaml, .yml or .json".to_owned();
                    tell(problem(path, Severity::Warning, message, ""));
                }
                Ok(found) => files.extend(found),
                Err(error) => tell(problem(path, Severity::Error, unreadable(&error), "")),
            },
            // Unreadable files are found out by reading them.
            Ok(_) | Err(_) => files.push(path.clone()),
        }
    }
    // A file may be named twice, or be in a folder that is named as well.
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    if files.len() > FILES_MAX {
        let message = format!("{} files, more than {FILES_MAX}", files.len());
        tell(problem(&files[FILES_MAX], Severity::Error, message, "name fewer folders"));
        files.truncate(FILES_MAX);
    }
    files
}

fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let wanted = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
        if wanted && !name.starts_with('.') && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The file's text, or what is wrong with it and what to do.
fn text(path: &Path) -> Result<String, (String, &'static str)> {
    let metadata = fs::metadata(path).map_err(|error| (unreadable(&error), ""))?;
    // A pipe would keep us waiting.
    if !metadata.is_file() {
        return Err(("not a file".to_owned(), ""));
    }
    let mut bytes = Vec::new();
    let reading =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    reading.map_err(|error| (unreadable(&error), ""))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err((format!("larger than {} MiB", FILE_BYTES_MAX >> 20), "split the file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|byte| *byte == b'\n').count();
        (format!("not UTF-8 text, from line {line} on"), "save it as UTF-8")
    })
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn problem(path: &Path, severity: Severity, message: String, hint: &str) -> Problem {
    Problem {
        severity,
        file: path.to_string_lossy().into(),
        line: None,
        object: None,
        field: None,
        message,
        hint: (!hint.is_empty()).then(|| hint.to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
