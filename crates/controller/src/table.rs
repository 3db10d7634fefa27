//! Reads the tables in `testdata`: a title, a file, and what is expected of it.

/// One row of a table.
pub(crate) struct Case {
    pub(crate) title: &'static str,
    pub(crate) text: String,
    pub(crate) expected: Vec<&'static str>,
}

/// Titles begin with `### `, expectations with `#> `; everything else is the file.
pub(crate) fn cases(table: &'static str) -> Vec<Case> {
    let case = |case: &'static str| {
        let (title, lines) = case.split_once('\n').expect("a title");
        let expected = lines.lines().filter_map(|line| line.strip_prefix("#> ")).collect();
        let text = lines.lines().filter(|line| !line.starts_with("#> "));
        Case { title, text: text.flat_map(|line| [line, "\n"]).collect(), expected }
    };
    table.split("\n### ").skip(1).map(case).collect()
}
