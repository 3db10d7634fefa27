//! What is generated from the binary, pages and definitions: written by one command, compared by a
//! step of the tests.

use std::{fs, process::Command};

use anyhow::{Context as _, bail};

use crate::{Places, definitions, steps::run_shown};

const PAGES: [&str; 2] = ["cli", "metrics"];

/// Builds the binary and writes every page and every definition.
pub(crate) fn write(places: &Places) -> anyhow::Result<()> {
    let mut build = Command::new(&places.cargo);
    build.args(["build", "--release", "--bin", "tokenweir"]).current_dir(&places.root);
    run_shown(&mut build)?;
    for page in PAGES {
        let path = path(places, page);
        fs::write(&path, print(places, &["reference", page])?)
            .with_context(|| path.display().to_string())?;
        println!("wrote {}", path.display());
    }
    definitions::write(places, &print(places, &["crds"])?)
}

/// Fails if anything generated is not what the binary prints.
pub(crate) fn check(places: &Places) -> anyhow::Result<()> {
    for page in PAGES {
        let path = path(places, page);
        if fs::read_to_string(&path).unwrap_or_default() != print(places, &["reference", page])? {
            bail!("{} is not current; run `cargo xtask generate`", path.display());
        }
        println!("{} is current", path.display());
    }
    definitions::check(places, &print(places, &["crds"])?)
}

fn path(places: &Places, page: &str) -> std::path::PathBuf {
    places.root.join("docs/generated").join(format!("{page}.md"))
}

fn print(places: &Places, arguments: &[&str]) -> anyhow::Result<String> {
    let binary = places.binary();
    let output = Command::new(&binary).args(arguments).output();
    let output = output.with_context(|| binary.display().to_string())?;
    if !output.status.success() {
        let words = arguments.join(" ");
        bail!("`{} {words}` failed: {}", binary.display(), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
