//! The generated pages of the documentation: written by one command, compared by a step of the tests.

use std::{fs, process::Command};

use anyhow::{Context as _, bail};

use crate::{Places, steps::run_shown};

const PAGES: [&str; 2] = ["cli", "metrics"];

/// Builds the binary and writes every page.
pub(crate) fn write(places: &Places) -> anyhow::Result<()> {
    let mut build = Command::new(&places.cargo);
    build.args(["build", "--release", "--bin", "tokenweir"]).current_dir(&places.root);
    run_shown(&mut build)?;
    for page in PAGES {
        let path = path(places, page);
        fs::write(&path, print(places, page)?).with_context(|| path.display().to_string())?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// Fails if a page is not what the binary prints.
pub(crate) fn check(places: &Places) -> anyhow::Result<()> {
    for page in PAGES {
        let path = path(places, page);
        if fs::read_to_string(&path).unwrap_or_default() != print(places, page)? {
            bail!("{} is not current; run `cargo xtask generate`", path.display());
        }
        println!("{} is current", path.display());
    }
    Ok(())
}

fn path(places: &Places, page: &str) -> std::path::PathBuf {
    places.root.join("docs/generated").join(format!("{page}.md"))
}

fn print(places: &Places, page: &str) -> anyhow::Result<String> {
    let binary = places.binary();
    let output = Command::new(&binary).args(["reference", page]).output();
    let output = output.with_context(|| binary.display().to_string())?;
    if !output.status.success() {
        bail!("`{} reference {page}` failed: {}", binary.display(), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
