//! The baseline: what is written is read again, and growth is noticed.

use super::*;

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect()
}

#[test]
fn what_is_written_is_read_again() {
    let path = std::env::temp_dir().join(format!("instructions-{}.txt", std::process::id()));
    let some = counts(&[("a case", 12), ("another", 3_000_000)]);
    std::fs::write(&path, written(&some)).unwrap();
    let read = read(&path);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read.unwrap(), some);
}

#[test]
fn a_case_that_grew_is_named_and_one_that_shrank_or_is_new_is_not() {
    let baseline = counts(&[("same", 1000), ("grown", 1000), ("shrunk", 1000), ("gone", 1)]);
    let now = counts(&[("same", 1049), ("grown", 1051), ("shrunk", 10), ("new", 99)]);
    assert_eq!(grown(&now, &baseline).collect::<Vec<_>>(), ["grown"]);
    let table = table(&now, &baseline);
    assert!(
        table.contains("+5.1 %") && table.contains("-99.0 %") && table.contains("new"),
        "{table}"
    );
}
