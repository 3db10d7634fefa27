use super::*;

/// (value, as Python's client writes it)
#[test]
fn numbers_are_written_as_the_real_server_writes_them() {
    let table = [
        (0.0, "0.0"),
        (12.0, "12.0"),
        (0.752_941_176_470_588_2, "0.7529411764705882"),
        (999_999.0, "999999.0"),
        (1_234_567.0, "1.234567e+06"),
        (33_554_432.0, "3.3554432e+07"),
        (1_795_341_357.667_625_7, "1.7953413576676257e+09"),
    ];
    for (value, expected) in table {
        assert_eq!(number(value), expected);
    }
}
