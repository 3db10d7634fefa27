use super::*;

#[test]
fn dates_are_written_as_http_wants_them() {
    let table = [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1_795_341_141, "Sun, 22 Nov 2026 09:52:21 GMT"),
        (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
    ];
    for (seconds, expected) in table {
        assert_eq!(http_date(Duration::from_secs(seconds)), expected);
    }
}
