//! The files of a folder, however deep.

use std::fs;
use std::path::{Path, PathBuf};

/// Every file below `folder` with this extension, but for files and folders that are `skipped`.
pub fn files_below(folder: &Path, extension: &str, skipped: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if skipped(&path) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|is| is == extension) {
                found.push(path);
            }
        }
    }
    found
}
