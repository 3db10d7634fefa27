use sim::Fault;

use super::*;

#[test]
fn a_fault_is_for_all_servers_or_for_one() {
    let all = PlacedFault { index: None, fault: Fault::Freeze };
    assert_eq!(placed_fault("stall"), Ok(all));
    assert_eq!(placed_fault("2=stall"), Ok(PlacedFault { index: Some(2), ..all }));
    for (text, complaint) in [
        ("x=stall", "expected the index of a server"),
        ("-1=stall", "expected the index of a server"),
        ("0=stal", "\"stal\" is no fault; a fault is one of none, refuse, "),
        ("0=", "\"\" is no fault"),
    ] {
        let error = placed_fault(text).unwrap_err();
        assert!(error.starts_with(complaint), "{text}: {error}");
    }
}
