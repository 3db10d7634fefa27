use super::parameter;

#[test]
fn parameters_are_found_and_decoded() {
    let table = [
        ("", None),
        ("limit", Some("")),
        ("limit=5", Some("5")),
        ("a=1&limit=5&limit=6", Some("5")),
        ("limits=5", None),
        ("l%69mit=a%2Fb+c", Some("a/b c")),
        ("limit=%C3%A4%zz%4", Some("ä%zz%4")),
        ("limit=a=b", Some("a=b")),
        ("limit=%ff", Some("\u{fffd}")),
    ];
    for (query, expected) in table {
        assert_eq!(parameter(query, "limit").as_deref(), expected, "{query}");
    }
}
