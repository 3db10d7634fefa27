//! `tokenweir crds`: the definitions of the kinds, for a cluster that has none of them.

use std::fmt::Write;

use crate::outcome::{Failed, Outcome, say};

pub(crate) fn run() -> Outcome {
    say(&text()?);
    Ok(())
}

/// YAML documents, each below a comment that names the file of `deploy/crds` it is in.
fn text() -> Result<String, Failed> {
    let mut text = String::new();
    for definition in controller::definitions() {
        let document = serde_saphyr::to_string(&definition.manifest).map_err(Failed::run)?;
        let rule = if text.is_empty() { "" } else { "---\n" };
        write!(text, "{rule}# {}\n{}\n", definition.file, document.trim_end())
            .map_err(Failed::run)?;
    }
    Ok(text.trim_end().to_owned())
}
